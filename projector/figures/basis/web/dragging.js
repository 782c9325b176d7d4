// The tip of a basis vector, which can be dragged or moved by arrow keys.

import { fixed, make } from "./text.js";

const NAMES = ["first", "second"];
const TELL_MS = 500; // After the last key, the server is told.

export class Handle {
  constructor(plane, toy, column) {
    this.plane = plane;
    this.toy = toy;
    this.column = column;
    this.element = make("button", `handle ${NAMES[column]}`);
    this.element.type = "button";
    this.element.dataset.control = NAMES[column];
    this.element.setAttribute("aria-roledescription", "tip that arrow keys move");
    this.element.addEventListener("pointerdown", (event) => this.drag(event));
    plane.stage.append(this.element);
  }

  // The picture keeps its scale until the tip is let go.
  drag(event) {
    const { element, plane } = this;
    event.preventDefault();
    element.focus({ preventScroll: true });
    element.setPointerCapture(event.pointerId);
    plane.player.stop();
    plane.scene.t = 1;
    plane.held = plane.view;
    const move = (at) => {
      const box = plane.canvas.getBoundingClientRect();
      this.toy.setColumn(
        this.column,
        ...plane.view.placeOf(at.clientX - box.left, at.clientY - box.top),
      );
    };
    const drop = () => {
      element.removeEventListener("pointermove", move);
      plane.held = null;
      plane.changed();
    };
    element.addEventListener("pointermove", move);
    element.addEventListener("pointerup", drop, { once: true });
    element.addEventListener("pointercancel", drop, { once: true });
    plane.follow();
  }

  // By a step across and one upwards.
  nudge(dx, dy) {
    const { column, plane } = this;
    const { matrix } = plane.scene;
    plane.player.stop();
    plane.scene.t = 1;
    this.toy.setColumn(column, matrix[0][column] + dx, matrix[1][column] + dy);
    clearTimeout(plane.telling);
    plane.telling = setTimeout(() => plane.changed(), TELL_MS);
  }

  // `tip`: where the vector's tip is at this moment.
  show(tip, { view, scene }, colour) {
    const column = scene.matrix.map((row) => row[this.column]);
    const [x, y] = view.toScreen(scene.t >= 1 ? scene.fold(column) : tip);
    this.element.style.color = colour;
    this.element.style.left = `${x}px`;
    this.element.style.top = `${y}px`;
    const name = `e${"₁₂"[this.column]}`;
    const words = `Where ${name} goes: (${fixed(column[0])}, ${fixed(column[1])}). Drag it, or press arrow keys.`;
    this.element.setAttribute("aria-label", words);
    this.element.title = words;
  }
}
