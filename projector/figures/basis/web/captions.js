// Words on the picture: which moment and space it shows, its scale and its axes.

import { fixed } from "./text.js";

export function drawCaptions(pen, scene) {
  const { ink, view } = pen;
  const { data, factor, t } = scene;
  const isBefore = t < 0.5;
  const moment = t > 1.5 ? "after the ReLU" : isBefore ? "before" : "after";
  const space = isBefore ? data.space_before : data.space_after;
  const head = scene.isToy ? moment : data.kind === "skip" ? data.space_after : `${moment}: ${space}`;
  pen.words(head, [10, 14], ink, "left");
  if (!isBefore && factor !== 1) {
    const by = `Lengths are divided by ${fixed(1 / factor, 1 / factor < 0.1 ? 4 : 2)}.`;
    pen.words(by, [10, view.size - 14], ink, "left");
  }
  const [across, up] = isBefore ? data.axes_before : data.axes_after;
  const [x, y] = view.toScreen([0, 0]);
  pen.words(across, [view.size - 8, y + 12], ink, "right");
  pen.words(up, [x + 8, 32], ink, "left");
}
