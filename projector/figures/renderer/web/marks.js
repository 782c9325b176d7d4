// What is drawn over the points: rings, lines to the nearest neurons, the loop of a lasso.

import { placeOf } from "./camera.js";

// More rings than that are a blot: then the others' paleness tells.
const MOST_RINGS = 200;

const ring = (pen, at, radius, width, colors) => {
  pen.strokeStyle = colors.page;
  pen.lineWidth = width + 2;
  pen.beginPath();
  pen.arc(at.x, at.y, radius * at.near, 0, 7);
  pen.stroke();
  pen.strokeStyle = colors.mark;
  pen.lineWidth = width;
  pen.stroke();
};

export const paintMarks = (pen, panel, box, colors) => {
  const at = (i) => placeOf(panel, box, i);
  const chosen = panel.selected === null ? null : at(panel.selected);
  if (chosen) paintLines(pen, panel, chosen, at, colors);
  if (panel.marked.length <= MOST_RINGS)
    for (const i of panel.marked) {
      const found = at(i);
      if (found) ring(pen, found, 7, 1.25, colors);
    }
  for (const [i] of panel.near) {
    const found = at(i);
    if (found) ring(pen, found, 8, 1.5, colors);
  }
  if (panel.pointed !== null) {
    const found = at(panel.pointed);
    if (found) ring(pen, found, 10, 2.5, colors);
  }
  if (chosen) ring(pen, chosen, 11, 2.5, colors);
  return chosen;
};

// To the nearest by ρ, wherever the map put them: the stronger, the thicker.
const paintLines = (pen, panel, chosen, at, colors) => {
  if (!panel.near.length) return;
  const rhos = panel.near.map(([, rho]) => rho);
  const [least, most] = [Math.min(...rhos), Math.max(...rhos)];
  pen.save();
  pen.strokeStyle = colors.mark;
  for (const [i, rho] of panel.near) {
    const to = at(i);
    if (!to) continue;
    const share = most > least ? (rho - least) / (most - least) : 1;
    pen.globalAlpha = 0.3 + 0.5 * share;
    pen.lineWidth = 1 + 2.2 * share;
    pen.beginPath();
    pen.moveTo(chosen.x, chosen.y);
    pen.lineTo(to.x, to.y);
    pen.stroke();
  }
  pen.restore();
};

export const paintLoop = (pen, loop, colors) => {
  if (!loop || loop.length < 2) return;
  pen.save();
  pen.strokeStyle = colors.mark;
  pen.fillStyle = colors.mark;
  pen.lineWidth = 1.5;
  pen.setLineDash([5, 4]);
  pen.beginPath();
  for (const [x, y] of loop) pen.lineTo(x, y);
  pen.closePath();
  pen.stroke();
  pen.globalAlpha = 0.1;
  pen.fill();
  pen.restore();
};
