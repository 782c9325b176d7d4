// The moment goes from before to after and back, as long as it plays.

import { clamp } from "./geometry.js";

const FORWARD_MS = 1400; // From before to after.
const WAIT_MS = 500; // At either end, before it plays back.

export class Player {
  isPlaying = false;

  // `draw()` shows the scene's new moment.
  constructor(scene, draw) {
    this.scene = scene;
    this.draw = draw;
    this.still = matchMedia("(prefers-reduced-motion: reduce)");
  }

  toggle() {
    if (this.isPlaying) this.stop();
    else this.play();
  }

  play() {
    const { scene } = this;
    if (this.still.matches) {
      this.go(scene.t < scene.end ? Math.floor(scene.t) + 1 : 0);
      return;
    }
    this.isPlaying = true;
    if (scene.t >= scene.end) scene.t = 0;
    this.way = 1;
    this.waitUntil = 0;
    this.last = performance.now();
    const step = (now) => {
      if (!this.isPlaying) return;
      if (now >= this.waitUntil) this.move(now);
      this.last = now;
      this.draw();
      this.frame = requestAnimationFrame(step);
    };
    this.frame = requestAnimationFrame(step);
    this.draw();
  }

  // By as much as time has passed; it waits at both ends, and before the ReLU.
  move(now) {
    const { scene } = this;
    const { end, t } = scene;
    const next = t + (this.way * (now - this.last)) / FORWARD_MS;
    const passed = this.way > 0 && t < 1 && next >= 1 && end === 2 ? 1 : next;
    scene.t = clamp(passed, 0, end);
    if (scene.t === 0 || scene.t === end) this.way = scene.t === 0 ? 1 : -1;
    if (scene.t === 0 || scene.t === 1 || scene.t === end) this.waitUntil = now + WAIT_MS;
  }

  stop() {
    this.isPlaying = false;
    cancelAnimationFrame(this.frame);
    this.draw();
  }

  go(t) {
    this.scene.t = clamp(t, 0, this.scene.end);
    this.draw();
  }
}
