// What is where at a moment t: before at 0, after at 1, and up to 2 what a ReLU makes of it.

import { mix, partOf, singularValues, times } from "./geometry.js";

export class Scene {
  t = 0;
  hasReLU = false;

  get isToy() {
    return this.data.kind === "toy";
  }

  get hasMatrix() {
    return ["map", "toy"].includes(this.data.kind);
  }

  get end() {
    return this.isToy && this.hasReLU ? 2 : 1;
  }

  // What the plane after is drawn by, so that both fit: a map of a model may stretch thirtyfold.
  get factor() {
    const [top] = singularValues(this.matrix);
    return this.isToy || (top > 0.4 && top < 2.5) || top === 0 ? 1 : 1 / top;
  }

  get matrixNow() {
    const f = this.factor;
    const scaled = this.matrix.map((row) => row.map((value) => value * f));
    return partOf(scaled, Math.min(1, this.t));
  }

  // Behind the matrix, a part of the ReLU.
  fold(p) {
    return this.t <= 1 ? p : mix(p, [Math.max(0, p[0]), Math.max(0, p[1])], this.t - 1);
  }

  scaled([x, y]) {
    return [x * this.factor, y * this.factor];
  }

  get pointsAfter() {
    const { data } = this;
    return this.isToy ? data.points_before.map((p) => times(this.matrix, p)) : data.points_after;
  }

  get pointsNow() {
    const { data } = this;
    if (this.isToy || data.follows_matrix) {
      const now = this.matrixNow;
      return data.points_before.map((p) => this.fold(times(now, p)));
    }
    const t = Math.min(1, this.t);
    return data.points_before.map((p, k) => mix(p, this.scaled(data.points_after[k]), t));
  }

  // The arrows by the longest of them.
  get arrows() {
    const { arrows } = this.data;
    const most = arrows.reduce((far, each) => Math.max(far, Math.hypot(each.x, each.y)), 0) || 1;
    return arrows.map((each) => [each.x / most, each.y / most]);
  }

  // The point whose combination is drawn, and its coefficients: the one pointed at where all are known.
  get mixture() {
    const { pattern, weights, selected } = this.data;
    const chosen = (pattern ? this.pointed : null) ?? selected ?? -1;
    return [chosen, (pattern ? pattern[chosen] : weights) ?? []];
  }
}
