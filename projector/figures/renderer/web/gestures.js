// What the user does with pointer, wheel and keys.

import { placeOf } from "./camera.js";
import { isWithin } from "./marks.js";
import { nNeurons, pixels } from "./points.js";

const CLICK = 4; // Pixels that a hand moves in a click.

export class Gestures {
  constructor(map) {
    this.map = map;
    this.canvas = map.overlay;
    this.fingers = new Map(); // id → place, of what touches the map.
    this.isActive = false; // After a click into the map the wheel is the map's.
    this.listen();
  }

  listen() {
    const { canvas, map } = this;
    canvas.addEventListener("pointerdown", (event) => this.press(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerup", (event) => this.release(event));
    canvas.addEventListener("pointercancel", (event) => {
      this.fingers.delete(event.pointerId);
      this.drag = null;
    });
    canvas.addEventListener("pointerleave", () => {
      map.hideTip();
      this.isActive = false;
    });
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    canvas.addEventListener("dblclick", () => map.resetCamera());
    map.host.addEventListener("keydown", (event) => this.key(event));
    // Where nothing has the focus, the tokens have the keys.
    this.anywhere = (event) => {
      const isFree = event.target === document.body || event.target === document.documentElement;
      if (isFree && map.timeline.nTokens > 1) this.key(event);
    };
    document.addEventListener("keydown", this.anywhere);
  }

  destroy() {
    document.removeEventListener("keydown", this.anywhere);
  }

  at(event) {
    const area = this.canvas.getBoundingClientRect();
    return [event.clientX - area.left, event.clientY - area.top];
  }

  press(event) {
    const { map } = this;
    this.canvas.setPointerCapture(event.pointerId);
    this.fingers.set(event.pointerId, this.at(event));
    this.isActive = true;
    const isLasso = map.dim < 3 && event.button === 0 && (map.lassoing || event.shiftKey);
    this.drag = {
      x: event.clientX, y: event.clientY, moved: 0, pan: event.button !== 0 || event.shiftKey,
      loop: isLasso ? [this.at(event)] : null,
    };
    map.hideTip();
  }

  move(event) {
    const { map, drag } = this;
    if (!drag) {
      this.point(event);
      return;
    }
    if (this.fingers.size > 1) {
      this.pinch(event);
      return;
    }
    const [dx, dy] = [event.clientX - drag.x, event.clientY - drag.y];
    Object.assign(drag, { x: event.clientX, y: event.clientY });
    drag.moved += Math.abs(dx) + Math.abs(dy);
    if (drag.loop) {
      drag.loop.push(this.at(event));
      map.loop = drag.loop;
      map.draw();
    } else if (drag.moved > CLICK) {
      map.camera.turn(dx, dy, map.stage.clientHeight, drag.pan);
      map.draw();
    }
  }

  release(event) {
    const { map, drag } = this;
    this.fingers.delete(event.pointerId);
    this.drag = null;
    map.loop = null;
    if (!drag || drag.pinched) return;
    if (drag.moved > CLICK) {
      if (drag.loop) this.lasso(drag.loop);
      return;
    }
    if (event.button !== 0) return;
    const found = this.find(event);
    if (found) map.pick(found.panel, found.neuron);
  }

  // Two fingers: their distance zooms, their middle moves.
  pinch(event) {
    const spread = () => {
      const [[ax, ay], [bx, by]] = [...this.fingers.values()];
      return { apart: Math.hypot(ax - bx, ay - by) || 1, x: (ax + bx) / 2, y: (ay + by) / 2 };
    };
    const before = spread();
    this.fingers.set(event.pointerId, this.at(event));
    const now = spread();
    const { map } = this;
    this.drag.pinched = true;
    map.camera.turn(now.x - before.x, now.y - before.y, map.stage.clientHeight, true);
    map.camera.zoomBy(now.apart / before.apart, this.anchor(now.x, now.y));
    map.draw();
  }

  // The page scrolls over the map, unless the map was clicked, or Ctrl or ⌘ is held; a pinch on a
  // trackpad comes as a wheel with Ctrl.
  wheel(event) {
    const { map } = this;
    const isHeld = event.ctrlKey || event.metaKey;
    if (!isHeld && !this.isActive) {
      map.showHint();
      return;
    }
    event.preventDefault();
    const speed = event.ctrlKey && Math.abs(event.deltaY) < 40 ? 0.01 : 0.0015;
    map.camera.zoomBy(Math.exp(-event.deltaY * speed), this.anchor(...this.at(event)));
    map.draw();
  }

  // A place on the screen, from the middle of its map in half heights.
  anchor(x, y) {
    const box = this.boxAt(x) || this.map.boxes[0];
    const half = box.height / 2;
    return { x: (x - box.left - box.width / 2) / half, y: (half - y) / half };
  }

  key(event) {
    // Those are the browser's.
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { map } = this;
    const { timeline } = map;
    const inTokens = event.target.tagName === "INPUT" || event.target.tagName === "SELECT";
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const step = steps[event.key];
    const isTimed = timeline.nTokens > 1;
    const isPressed = event.target.tagName === "BUTTON" || event.target.classList.contains("row");
    const turn = (dx, dy) => {
      map.camera.turn(dx, dy, map.stage.clientHeight, false);
      map.draw();
    };
    const zoom = (factor) => {
      map.camera.zoomBy(factor);
      map.draw();
    };
    if (event.key === " " && isTimed && !isPressed) timeline.play(!timeline.playing);
    else if (step && isTimed && !event.shiftKey && step[0] && !inTokens)
      timeline.goTo(timeline.token + step[0], true);
    else if (step && !inTokens && !isPressed) turn(step[0] * 15, step[1] * 15);
    else if (event.key === "Home" && isTimed && !inTokens) timeline.goTo(0, true);
    else if (event.key === "End" && isTimed && !inTokens) timeline.goTo(timeline.nTokens - 1, true);
    else if (event.key === "+" || event.key === "=") zoom(1.2);
    else if (event.key === "-") zoom(1 / 1.2);
    else if (event.key === "r" || event.key === "R") map.resetCamera();
    else if (event.key === "Escape" && map.lassoing) map.useLasso(false);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  boxAt(x) {
    return this.map.boxes.find((box) => x >= box.left && x < box.left + box.width);
  }

  // The neuron under the pointer, and the map that it is on.
  find(event) {
    const { map } = this;
    const [x, y] = this.at(event);
    const index = map.boxes.indexOf(this.boxAt(x));
    const panel = map.panels[index];
    // What came just now is not drawn yet.
    if (!panel || !panel.positions || !panel.emphasis) return null;
    const box = map.boxes[index];
    const largest = pixels(nNeurons(panel), box, map.camera.zoom);
    let best = null;
    for (let i = 0; i < nNeurons(panel); i++) {
      if (!panel.emphasis[i]) continue;
      const at = placeOf(panel, box, i);
      if (!at) continue;
      const apart = Math.hypot(at.x - x, at.y - y);
      const reach = Math.max(5, (largest * at.near) / 2);
      // Of those under the pointer the one in front; else the nearest.
      if (apart <= reach && (!best || at.depth - best.depth < (apart < best.apart ? 0.05 : -0.05)))
        best = { apart, depth: at.depth, neuron: i };
    }
    return best && { panel: index, neuron: best.neuron };
  }

  point(event) {
    this.pointer = event;
    if (this.pointing) return;
    this.pointing = requestAnimationFrame(() => {
      this.pointing = 0;
      const found = this.find(this.pointer);
      if (found) this.map.showTip(found, this.pointer);
      else this.map.hideTip();
    });
  }

  lasso(loop) {
    const { map } = this;
    const index = map.boxes.indexOf(this.boxAt(loop[0][0]));
    const panel = map.panels[index];
    if (!panel || !panel.positions || !panel.emphasis) return;
    const found = [];
    for (let i = 0; i < nNeurons(panel); i++) {
      const at = panel.emphasis[i] && placeOf(panel, map.boxes[index], i);
      if (at && isWithin(loop, at.x, at.y)) found.push(i);
    }
    map.useLasso(false);
    map.mark(index, found);
  }
}
