// The points, their labels, and the lines to the one that is a combination of the others.

import { clamp } from "./geometry.js";
import { labelOf } from "./text.js";

const MOST_LABELS = 28;
const LEAST_PART = 0.02; // Of the largest coefficient: a smaller one has no line.

// Gives the points where they are now.
export function drawPoints(pen, scene) {
  const { data } = scene;
  const { reach } = pen.view;
  const { mark, point } = pen.colours;
  const now = scene.pointsNow;
  const [chosen, weights] = scene.mixture;
  const kept = scene.hasReLU ? (scene.isToy ? scene.pointsAfter : data.points_before) : null;
  const t = Math.min(1, scene.t);
  // From where each point was; under a matrix the grid shows that.
  if (!scene.isToy && !data.follows_matrix)
    now.forEach((p, k) => pen.line([data.points_before[k], p], pen.ink, 1, 0.12 * t));
  if (chosen >= 0 && now[chosen]) {
    const most = Math.max(...weights, 1e-9);
    weights.forEach((weight, k) => {
      const part = weight / most;
      if (part > LEAST_PART && now[k])
        pen.line(
          [data.points_before[k], now[chosen]],
          mark,
          0.6 + 4.4 * part,
          t * (0.2 + 0.7 * part),
        );
    });
  }
  now.forEach((p, k) => {
    const isIn = Math.abs(p[0]) <= reach && Math.abs(p[1]) <= reach;
    const at = pen.view.toScreen(p.map((value) => clamp(value, -reach * 0.985, reach * 0.985)));
    const isKept = !kept || (kept[k][0] > 0 && kept[k][1] > 0);
    const radius = k === chosen ? 6 : now.length > 150 ? 2.5 : 4;
    const colour = k === chosen ? mark : isKept ? point : pen.ink;
    pen.dot(at, radius, colour, { isFull: isIn && isKept, alpha: isKept ? 0.9 : 0.5 });
  });
  drawLabels(pen, data.labels ?? [], now, chosen);
  return now;
}

// The chosen one's first; none over another.
function drawLabels(pen, labels, now, chosen) {
  const { size } = pen.view;
  const taken = [];
  const order = now.map((_, k) => k).sort((a, b) => (b === chosen) - (a === chosen));
  if (now.length > MOST_LABELS) order.length = chosen >= 0 ? 1 : 0;
  for (const k of order) {
    const text = labelOf(labels[k] ?? "");
    if (!text) continue;
    const [x, y] = pen.view.toScreen(now[k]);
    const width = pen.widthOf(text);
    const left = x + 8 + width > size - 4 ? x - 8 - width : x + 8;
    const box = [left - 2, y - 8, left + width + 2, y + 8];
    if (taken.some((b) => box[0] < b[2] && b[0] < box[2] && box[1] < b[3] && b[1] < box[3]))
      continue;
    taken.push(box);
    pen.words(text, [left, y], k === chosen ? pen.colours.mark : pen.ink, "left");
  }
}
