// A matrix of the user's own: four fields, and examples.

import { clamp } from "./geometry.js";
import { Handle } from "./dragging.js";
import { make } from "./text.js";

const MOST = 9; // That an entry may be.
const PRESETS = {
  "a stretch and a shear": [[1.4, 0.6], [0.2, 0.8]],
  "a turn by 60°": [[0.5, -0.866], [0.866, 0.5]],
  "a stretch": [[2, 0], [0, 0.5]],
  "a shear": [[1, 1], [0, 1]],
  "a reflection": [[0, 1], [1, 0]],
  "a projection": [[0.5, 0.5], [0.5, 0.5]],
  "no change": [[1, 0], [0, 1]],
};

export class Toy {
  constructor(plane) {
    this.plane = plane;
    this.handles = [0, 1].map((column) => new Handle(plane, this, column));
    const matrix = make("fieldset", "matrix");
    matrix.append(make("legend", "", "Matrix"));
    this.fields = [0, 1].map((row) => [0, 1].map((column) => this.fieldOf(row, column)));
    matrix.append(...this.fields.flat());
    plane.side.append(matrix, this.examples());
  }

  fieldOf(row, column) {
    const { player, scene } = this.plane;
    const field = make("input");
    field.type = "number";
    field.step = "0.1";
    field.dataset.control = `field ${row} ${column}`;
    field.setAttribute("aria-label", `Row ${row + 1}, column ${column + 1}`);
    field.addEventListener("change", () => {
      const value = Number(field.value);
      if (Number.isFinite(value)) scene.matrix[row][column] = clamp(value, -MOST, MOST);
      player.stop();
      scene.t = 1;
      this.plane.changed();
    });
    return field;
  }

  examples() {
    const { player, scene } = this.plane;
    const list = make("select");
    list.setAttribute("aria-label", "Example");
    list.dataset.control = "example";
    for (const name of ["an example …", ...Object.keys(PRESETS)]) list.append(make("option", "", name));
    list.addEventListener("change", () => {
      const chosen = PRESETS[list.value];
      list.selectedIndex = 0;
      if (!chosen) return;
      scene.matrix = chosen.map((row) => [...row]);
      scene.t = 0;
      this.plane.changed();
      player.play();
    });
    return list;
  }

  setColumn(column, x, y) {
    const round = (value) => Math.round(clamp(value, -MOST, MOST) * 100) / 100;
    const { matrix } = this.plane.scene;
    matrix[0][column] = round(x);
    matrix[1][column] = round(y);
    this.plane.follow();
  }

  showMatrix() {
    const { matrix } = this.plane.scene;
    this.fields.forEach((row, i) =>
      row.forEach((field, j) => (field.value = String(Math.round(matrix[i][j] * 1000) / 1000))),
    );
  }
}
