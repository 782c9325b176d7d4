// A matrix of the user's own: four fields, and examples.

import { clamp, determinant } from "./geometry.js";
import { Handle } from "./dragging.js";
import { fixed, make, short } from "./text.js";

const MOST = 9; // That an entry may be.
const PRESETS = {
  "a stretch and a shear": [
    [1.4, 0.6],
    [0.2, 0.8],
  ],
  "a rotation by 60°": [
    [0.5, -0.866],
    [0.866, 0.5],
  ],
  "a stretch": [
    [2, 0],
    [0, 0.5],
  ],
  "a shear": [
    [1, 1],
    [0, 1],
  ],
  "a reflection": [
    [0, 1],
    [1, 0],
  ],
  "a projection": [
    [0.5, 0.5],
    [0.5, 0.5],
  ],
  "no change": [
    [1, 0],
    [0, 1],
  ],
};

export class Toy {
  constructor(plane) {
    this.plane = plane;
    this.handles = [0, 1].map((column) => new Handle(plane, this, column));
    const matrix = make("fieldset", "matrix");
    matrix.append(make("legend", "", "Matrix"));
    this.fields = [0, 1].map((row) => [0, 1].map((column) => this.fieldOf(row, column)));
    matrix.append(...this.fields.flat());
    this.problem = make("p", "problem");
    this.problem.setAttribute("role", "alert");
    // What screen readers say once it has changed.
    this.said = make("p", "said");
    this.said.setAttribute("role", "status");
    plane.side.append(matrix, this.problem, this.said, this.examples());
  }

  fieldOf(row, column) {
    const { player, scene } = this.plane;
    const field = make("input");
    field.type = "number";
    field.step = "0.1";
    field.min = String(-MOST);
    field.max = String(MOST);
    field.dataset.control = `field ${row} ${column}`;
    field.setAttribute("aria-label", `Row ${row + 1}, column ${column + 1}`);
    field.addEventListener("change", () => {
      const value = field.value === "" ? NaN : Number(field.value);
      const isGood = Math.abs(value) <= MOST;
      this.problem.textContent = isGood ? "" : `Give a number from −${MOST} to ${MOST}.`;
      if (!isGood) {
        this.showMatrix();
        return;
      }
      scene.matrix[row][column] = value;
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
    for (const name of ["an example …", ...Object.keys(PRESETS)])
      list.append(make("option", "", name));
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
    this.plane.isTouched = true;
    this.problem.textContent = "";
    matrix[0][column] = round(x);
    matrix[1][column] = round(y);
    this.plane.follow();
  }

  say() {
    const { matrix } = this.plane.scene;
    const rows = matrix.map((row) => row.map((value) => fixed(value)).join(" and "));
    this.said.textContent = `Rows: ${rows.join("; ")}. Determinant: ${short(determinant(matrix))}.`;
  }

  showMatrix() {
    const { matrix } = this.plane.scene;
    this.fields.forEach((row, i) =>
      row.forEach((field, j) => (field.value = String(Math.round(matrix[i][j] * 1000) / 1000))),
    );
  }
}
