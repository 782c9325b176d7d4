// Words on the picture: which moment and space it shows, its scale and its axes.

import { singularValues } from "./geometry.js";
import { fixed, short } from "./text.js";

export function drawCaptions(pen, scene) {
  const { ink, view } = pen;
  const { data, factor, t } = scene;
  const isBefore = t < 0.5;
  const moment = t > 1.5 ? "after the ReLU" : isBefore ? "before" : "after";
  const space = isBefore ? data.space_before : data.space_after;
  const head = scene.isToy
    ? moment
    : data.kind === "skip"
      ? data.space_after
      : `${moment}: ${space}`;
  pen.words(head, [10, 14], ink, "left");
  if (!isBefore && factor !== 1) {
    const by =
      factor > 1
        ? `Lengths are drawn ${fixed(factor, 1)} times as long.`
        : `Lengths are divided by ${fixed(1 / factor)}.`;
    pen.words(by, [10, view.size - 14], ink, "left");
  }
  const [across, up] = isBefore ? data.axes_before : stretched(scene);
  const [x, y] = view.toScreen([0, 0]);
  pen.words(across, [view.size - 8, y + 12], ink, "right");
  pen.words(up, [x + 8, 32], ink, "left");
}

// The axes after, each with what the map stretches it by, where it only stretches.
function stretched({ data, matrix }) {
  if (data.kind !== "map" || data.is_same_plane) return data.axes_after;
  const values = singularValues(matrix);
  return data.axes_after.map((name, k) => `${name}: × ${short(values[k])}`);
}
