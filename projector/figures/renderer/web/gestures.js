// What the user does with pointer and wheel. It turns, moves and zooms the view's camera, and tells
// the view what was pointed at and clicked.
//
// A view has: `overlay`, the canvas that takes the pointer; `camera`; `boxes`, of its pictures side by
// side, in CSS pixels; `draw()`; `resetCamera()`; `showHint()`, how to zoom; `find(x, y)`, what is
// there, or null; `showTip(found, event)`; `hideTip()`; `click(found)`. A view with a lasso has
// `canLasso(event)`, `drawLoop(loop)`, null for none, and `catchLoop(loop)`. With `isScrolled` a plain
// wheel scrolls the page also after a click into the view.

const CLICK = 4; // Pixels that a hand moves in a click.

export class Gestures {
  constructor(view) {
    this.view = view;
    this.canvas = view.overlay;
    this.fingers = new Map(); // id → place, of what touches the view.
    this.isActive = false; // After a click into the view the wheel is its own.
    this.listen();
  }

  listen() {
    const { canvas, view } = this;
    canvas.addEventListener("pointerdown", (event) => this.press(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerup", (event) => this.release(event));
    canvas.addEventListener("pointercancel", (event) => {
      this.fingers.delete(event.pointerId);
      this.drag = null;
    });
    canvas.addEventListener("pointerleave", () => {
      view.hideTip();
      this.isActive = false;
    });
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    canvas.addEventListener("dblclick", () => view.resetCamera());
  }

  at(event) {
    const area = this.canvas.getBoundingClientRect();
    return [event.clientX - area.left, event.clientY - area.top];
  }

  press(event) {
    const { view } = this;
    this.canvas.setPointerCapture(event.pointerId);
    this.fingers.set(event.pointerId, this.at(event));
    this.isActive = true;
    const isLasso = Boolean(view.canLasso && view.canLasso(event));
    this.drag = {
      x: event.clientX,
      y: event.clientY,
      moved: 0,
      pan: event.button !== 0 || event.shiftKey,
      loop: isLasso ? [this.at(event)] : null,
    };
    view.hideTip();
  }

  move(event) {
    const { view, drag } = this;
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
      view.drawLoop(drag.loop);
    } else if (drag.moved > CLICK) {
      this.turn(dx, dy, drag.pan);
    }
  }

  turn(dx, dy, pan) {
    this.view.camera.turn(dx, dy, this.canvas.clientHeight, pan);
    this.view.draw();
  }

  release(event) {
    const { view, drag } = this;
    this.fingers.delete(event.pointerId);
    this.drag = null;
    if (drag && drag.loop) view.drawLoop(null);
    if (!drag || drag.pinched) return;
    if (drag.moved > CLICK) {
      if (drag.loop) view.catchLoop(drag.loop);
      return;
    }
    if (event.button !== 0) return;
    const found = view.find(...this.at(event));
    if (found) view.click(found);
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
    this.drag.pinched = true;
    this.view.camera.zoomBy(now.apart / before.apart, this.anchor(now.x, now.y));
    this.turn(now.x - before.x, now.y - before.y, true);
  }

  // The page scrolls over the view, unless the view was clicked, or Ctrl or ⌘ is held; a pinch on a
  // trackpad comes as a wheel with Ctrl.
  wheel(event) {
    const { view } = this;
    const isHeld = event.ctrlKey || event.metaKey;
    if (!isHeld && (view.isScrolled || !this.isActive)) {
      view.showHint();
      return;
    }
    event.preventDefault();
    const speed = event.ctrlKey && Math.abs(event.deltaY) < 40 ? 0.01 : 0.0015;
    view.camera.zoomBy(Math.exp(-event.deltaY * speed), this.anchor(...this.at(event)));
    view.draw();
  }

  // A place on the screen, from the middle of its picture in half heights.
  anchor(x, y) {
    const box = boxAt(this.view.boxes, x) || this.view.boxes[0];
    const half = box.height / 2;
    return { x: (x - box.left - box.width / 2) / half, y: (half - y) / half };
  }

  point(event) {
    this.pointer = event;
    if (this.pointing) return;
    this.pointing = requestAnimationFrame(() => {
      this.pointing = 0;
      const found = this.view.find(...this.at(this.pointer));
      if (found) this.view.showTip(found, this.pointer);
      else this.view.hideTip();
    });
  }

  destroy() {
    cancelAnimationFrame(this.pointing);
  }
}

export const boxAt = (boxes, x) => boxes.find((box) => x >= box.left && x < box.left + box.width);
