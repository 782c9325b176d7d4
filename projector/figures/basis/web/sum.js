// A vector, what is added to it, and their sum.

import { clamp, mix } from "./geometry.js";

// x stays; what is added slides to its tip, and the sum leads there.
export function drawSum(pen, scene) {
  const { view } = pen;
  const [x, added, sum] = scene.arrows;
  const { first, second, circle } = pen.colours;
  const t = Math.min(1, scene.t);
  const from = mix([0, 0], x, t);
  const to = [added[0] + from[0], added[1] + from[1]];
  pen.arrow([0, 0], sum, circle, { width: 4, alpha: t });
  pen.arrow([0, 0], x, second);
  pen.arrow(from, to, first);
  const names = scene.data.arrows.map((each) => each.name);
  const rows = [
    [names[0], mix([0, 0], x, 0.5), second, 0, 16],
    [names[1], mix(from, to, 0.5), first, 10, 0],
  ];
  if (t > 0.5) rows.push([names[2], mix([0, 0], sum, 0.5), circle, 0, -16]);
  for (const [name, at, colour, right, down] of rows) {
    const [left, top] = view.toScreen(at);
    const own = pen.widthOf(name) + 8;
    const start = right ? left + right : left - own / 2;
    pen.words(name, [clamp(start, 6, view.size - own), top + down], colour, "left");
  }
}
