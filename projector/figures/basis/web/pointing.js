// What the pointer rests on: its label, and where all combinations are known, that of its own.

import { fixed, labelOf, make } from "./text.js";

const NEAR = 12; // Pixels.

export class Pointing {
  constructor(plane) {
    this.plane = plane;
    this.tip = make("div", "tip");
    this.tip.hidden = true;
    plane.stage.append(this.tip);
    plane.canvas.addEventListener("pointermove", (event) => this.point(event));
    plane.canvas.addEventListener("pointerleave", () => (this.tip.hidden = true));
  }

  nearest(event) {
    const { canvas, shown, view } = this.plane;
    if (!shown || !view) return -1;
    const box = canvas.getBoundingClientRect();
    const [px, py] = [event.clientX - box.left, event.clientY - box.top];
    let [found, least] = [-1, NEAR];
    shown.forEach((p, k) => {
      const [x, y] = view.toScreen(p);
      const far = Math.hypot(x - px, y - py);
      if (far < least) [found, least] = [k, far];
    });
    return found;
  }

  point(event) {
    const { plane, tip } = this;
    const { scene } = plane;
    const k = scene.data.kind === "skip" ? -1 : this.nearest(event);
    const label = k >= 0 ? scene.data.labels?.[k] : "";
    if (scene.data.pattern && k >= 0 && k !== scene.pointed) {
      scene.pointed = k;
      plane.draw();
    }
    tip.hidden = !label;
    if (!label) return;
    const weight = scene.mixture[1][k];
    const share =
      weight === undefined || weight === null ? "" : ` · coefficient ${fixed(weight, 3)}`;
    tip.textContent = `${labelOf(label)}${share}`;
    const [x, y] = plane.view.toScreen(plane.shown[k]);
    tip.style.left = `${Math.min(x + 10, plane.view.size - tip.offsetWidth - 4)}px`;
    tip.style.top = `${y + 12}px`;
  }
}
