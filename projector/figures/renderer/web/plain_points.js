// Points on a plain canvas, where there is no WebGL.

import { placeOf } from "./camera.js";
import { rgb } from "./colors.js";
import { ACCENT } from "./emphasis.js";
import { pixels } from "./point_program.js";
import { nNeurons, valuesAt } from "./points.js";

// Of `found` — { at, own, size, emphasis }, its place, its colour and its size from 0 to 1 — what is
// far or pale is drawn first.
export const paintDiscs = (pen, found, box, largest, page) => {
  const order = (each) => (box.isFlat ? -each.emphasis : each.at.depth);
  found.sort((a, b) => order(b) - order(a));
  for (const { at, own, size, emphasis } of found) {
    const share = emphasis / 255;
    const mixed = page.map((part, k) => Math.round(part * (1 - share) + own[k] * share));
    pen.fillStyle = `rgb(${mixed.join(",")})`;
    pen.beginPath();
    pen.arc(at.x, at.y, (largest * (0.28 + size) * at.near * (0.75 + 0.25 * share)) / 2, 0, 7);
    pen.fill();
  }
};

export const paintPoints = (pen, panel, box, { token, zoom, colors }) => {
  const n = nNeurons(panel);
  const shown = valuesAt(panel, token);
  const accent = rgb(colors.mark);
  const found = [];
  for (let i = 0; i < n; i++) {
    const at = panel.emphasis[i] && placeOf(panel, box, i);
    if (!at) continue;
    const shade = 3 * (panel.frames ? shown[i] + 128 : shown[i]);
    const size = panel.frames
      ? Math.sqrt(Math.abs(shown[i]) / 127)
      : (panel.sizes ? panel.sizes[i] : 110) / 255;
    const own = panel.emphasis[i] === ACCENT ? accent : panel.palette.subarray(shade, shade + 3);
    found.push({ at, own, size, emphasis: panel.emphasis[i] });
  }
  paintDiscs(pen, found, box, pixels(n, box, zoom), rgb(colors.page));
};
