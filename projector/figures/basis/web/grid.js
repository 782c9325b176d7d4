// The plane itself: its grid, the circle and the two basis vectors, where the map has taken them.

import { singularValues, times } from "./geometry.js";

// Lines of the grid on each side of the origin.
const [LEAST_LINES, MOST_LINES] = [5, 40];

export function drawGrid(pen, scene) {
  const { reach, centre } = pen.view;
  const { first, second, circle } = pen.colours;
  const far = reach * 1.02 + Math.hypot(...centre);
  const n = Math.min(24, Math.ceil(far));
  for (let k = -n; k <= n; k++) {
    const [width, alpha] = k === 0 ? [1.2, 0.55] : [1, 0.1];
    pen.line(
      [
        [k, -far],
        [k, far],
      ],
      pen.ink,
      width,
      alpha,
    );
    pen.line(
      [
        [-far, k],
        [far, k],
      ],
      pen.ink,
      width,
      alpha,
    );
  }
  if (!scene.hasMatrix) return;
  const now = scene.matrixNow;
  // As many as reach the corners of the picture after the map.
  const across = Math.max(1e-9, singularValues(now)[1]);
  const ends = Math.min(
    MOST_LINES,
    Math.max(LEAST_LINES, Math.ceil(reach * 1.6), Math.ceil((1.5 * reach) / across)),
  );
  const steps = scene.t > 1 ? 48 : 1;
  const along = (at) =>
    Array.from({ length: steps + 1 }, (_, i) =>
      scene.fold(times(now, at(ends * ((2 * i) / steps - 1)))),
    );
  for (let k = -ends; k <= ends; k++) {
    const [width, alpha] = k === 0 ? [1.4, 0.75] : [1, 0.3];
    pen.line(
      along((s) => [k, s]),
      second,
      width,
      alpha,
    );
    pen.line(
      along((s) => [s, k]),
      first,
      width,
      alpha,
    );
  }
  const angles = Array.from({ length: 91 }, (_, i) => (i * Math.PI) / 45);
  const round = angles.map((a) => [Math.cos(a), Math.sin(a)]);
  pen.line(round, circle, 1, 0.3);
  pen.line(
    round.map((p) => scene.fold(times(now, p))),
    circle,
    2.2,
  );
}

const BESIDE = 12; // Pixels.

// `room`: pixels from a tip to its name.
export function drawBasis(pen, scene, room) {
  const { first, second } = pen.colours;
  tipsNow(scene).forEach((tip, k) => {
    const colour = [first, second][k];
    pen.arrow([0, 0], tip, colour);
    // Beyond the tip and at its left, where no axis and no name of one is.
    const length = Math.hypot(...tip) || 1;
    const [x, y] = tip.map((value) => value / length);
    const [left, top] = pen.view.toScreen(tip);
    const at = [left + x * room - y * BESIDE, top - y * room - x * BESIDE];
    pen.words(`e${"₁₂"[k]}`, at, colour, "center");
  });
}

export function tipsNow(scene) {
  const now = scene.matrixNow;
  return [
    [1, 0],
    [0, 1],
  ].map((p) => scene.fold(times(now, p)));
}
