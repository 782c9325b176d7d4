// Particles of the flat map as a density that changes from layer to layer: a sum of Gaussian
// kernels of one width, on one scale for all frames.

const GRID = 120; // Cells of the longer side.
const KERNEL = 0.085; // Of a kernel, in half sides of the map.
const BEYOND = 1.3; // Of the area, in half sides.

export class Density {
  constructor(particles, middle, reach) {
    this.particles = particles;
    const longest = Math.max(reach[0], reach[1]);
    this.half = [0, 1].map((axis) => reach[axis] * BEYOND + KERNEL * 2 * longest);
    this.middle = middle;
    this.cell = (2 * Math.max(...this.half)) / GRID;
    [this.columns, this.rows] = this.half.map((half) => Math.max(2, Math.ceil((2 * half) / this.cell)));
    this.sigma = (KERNEL * longest) / this.cell; // In cells.
    this.values = new Float32Array(this.columns * this.rows);
    this.greatest = 0;
    for (let frame = 0; frame < particles.nFrames; frame++) {
      this.fill(frame);
      for (const value of this.values) if (value > this.greatest) this.greatest = value;
    }
    this.canvas = document.createElement("canvas");
    this.canvas.width = this.columns;
    this.canvas.height = this.rows;
  }

  // The sum of kernels at a place between two frames.
  fill(at) {
    const { particles, values, columns, rows, sigma, cell, middle, half } = this;
    const { positions, born, n, nFrames } = particles;
    const from = Math.min(Math.floor(at), nFrames - 1);
    const to = Math.min(from + 1, nFrames - 1);
    const share = at - from;
    const span = Math.ceil(3 * sigma);
    const fall = 1 / (2 * sigma * sigma);
    values.fill(0);
    for (let i = 0; i < n; i++) {
      if (born && born[i] > from) continue;
      const [a, b] = [3 * (from * n + i), 3 * (to * n + i)];
      const x = (positions[a] + share * (positions[b] - positions[a]) - middle[0] + half[0]) / cell;
      const y = (positions[a + 1] + share * (positions[b + 1] - positions[a + 1]) - middle[1] + half[1]) / cell;
      if (!(x > -span && y > -span && x < columns + span && y < rows + span)) continue;
      const [left, right] = [Math.max(0, Math.floor(x - span)), Math.min(columns - 1, Math.ceil(x + span))];
      const [low, high] = [Math.max(0, Math.floor(y - span)), Math.min(rows - 1, Math.ceil(y + span))];
      for (let row = low; row <= high; row++) {
        const up = (row + 0.5 - y) ** 2;
        for (let column = left; column <= right; column++)
          values[row * columns + column] += Math.exp(-((column + 0.5 - x) ** 2 + up) * fall);
      }
    }
  }

  // `place(x, y)` gives the pixels of a place of the map, which is seen flat.
  paint(pen, at, place, table) {
    this.fill(at);
    const { columns, rows, values, greatest, canvas } = this;
    const own = canvas.getContext("2d");
    const picture = own.createImageData(columns, rows);
    for (let row = 0; row < rows; row++)
      for (let column = 0; column < columns; column++) {
        const share = Math.min(1, values[row * columns + column] / (greatest || 1));
        const k = 3 * (1 + Math.round(254 * share));
        // Rows of a picture run downwards.
        const to = 4 * ((rows - 1 - row) * columns + column);
        picture.data.set(table.subarray(k, k + 3), to);
        picture.data[to + 3] = 255 * Math.min(1, share * 3) * 0.92;
      }
    own.putImageData(picture, 0, 0);
    const [x, y] = this.middle;
    const [west, south] = [x - this.half[0], y - this.half[1]];
    const [left, top] = place(west, south + rows * this.cell);
    const [right, bottom] = place(west + columns * this.cell, south);
    pen.imageSmoothingEnabled = true;
    pen.imageSmoothingQuality = "high";
    pen.drawImage(canvas, left, top, right - left, bottom - top);
  }
}
