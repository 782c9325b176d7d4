// Particles of the flat map as a density that changes from layer to layer, with the windows, kernels
// and scale that the film of it has: see projector/figures/layers/cloud. Each prompt has a hue; on a
// light page both together are dark, on a dark one bright.

import { isDark, rgb } from "./colors.js";

const GRID = 120; // Cells of the longer side.
const BEYOND = 1.15; // Of what is drawn, in half sides of the window.
const HUES = [
  [59, 130, 196],
  [239, 134, 54],
];

// The colour of a page (3 bytes) with shades of 0 to 1 of each hue upon it.
const shaded = (page, dark, shades) =>
  page.map((own, part) => {
    let left = dark ? 255 - own : own;
    shades.forEach((shade, k) => {
      const hue = HUES[k % HUES.length][part];
      left *= 1 - (shade * (dark ? hue : 255 - hue)) / 255;
    });
    return dark ? 255 - left : left;
  });

// A palette of 256 colours of one prompt's hue.
export const densityPalette = (page, prompt) => {
  const table = new Uint8Array(768);
  const own = rgb(page);
  for (let i = 0; i < 256; i++)
    table.set(shaded(own, isDark(page), [...Array(prompt).fill(0), i / 255]), 3 * i);
  return table;
};

export class Density {
  // `found`: { low, high, spread, bandwidth, highest }; `isCounted`: a byte a particle.
  constructor(particles, found, isCounted, nPrompts) {
    Object.assign(this, { particles, found, isCounted, nPrompts });
    const sides = [0, 1].map((axis) => BEYOND * (found.high[0][axis] - found.low[0][axis]));
    const cell = Math.max(...sides) / GRID;
    [this.columns, this.rows] = sides.map((side) => Math.max(2, Math.round(side / cell)));
    // Windows are as many spreads wide in every frame, so that a kernel is as many cells.
    this.kernels = [this.columns, this.rows].map((n, axis) =>
      kernelOf((found.bandwidth * found.spread[0]) / (sides[axis] / n)),
    );
    const n = this.columns * this.rows;
    this.values = Array.from({ length: nPrompts }, () => new Float32Array(n));
    this.between = new Float32Array(n);
    this.canvas = document.createElement("canvas");
    this.canvas.width = this.columns;
    this.canvas.height = this.rows;
  }

  // The window at a time between two frames: the middle and half sides of what is seen.
  boxAt(at) {
    const { low, high } = this.found;
    const from = Math.min(Math.floor(at), low.length - 1);
    const to = Math.min(from + 1, low.length - 1);
    const share = at - from;
    const half = (f, axis) => (high[f][axis] - low[f][axis]) / 2;
    const mid = (f, axis) => (high[f][axis] + low[f][axis]) / 2;
    return {
      middle: [
        ...[0, 1].map((axis) => mid(from, axis) + share * (mid(to, axis) - mid(from, axis))),
        0,
      ],
      reach: [
        ...[0, 1].map((axis) => half(from, axis) * (half(to, axis) / half(from, axis)) ** share),
        0,
      ],
    };
  }

  // The kernels' sum of each prompt, where 1 is all of its particles in a square of one spread.
  fill(at, { middle, reach }) {
    const { particles, values, columns, rows, isCounted, found } = this;
    const { positions, born, n, nFrames, prompt } = particles;
    const from = Math.min(Math.floor(at), nFrames - 1);
    const to = Math.min(from + 1, nFrames - 1);
    const share = at - from;
    const totals = values.map(() => 0);
    for (const each of values) each.fill(0);
    for (let i = 0; i < n; i++) {
      if (!isCounted[i] || born[i] > to) continue;
      // What is yet to come comes little by little, where it will be.
      const weight = born[i] <= from ? 1 : share;
      const [a, b] = [3 * ((born[i] <= from ? from : to) * n + i), 3 * (to * n + i)];
      const x = positions[a] + share * (positions[b] - positions[a]);
      const y = positions[a + 1] + share * (positions[b + 1] - positions[a + 1]);
      if (!weight || !Number.isFinite(x + y)) continue;
      totals[prompt[i]] += weight;
      // Shared among the four cells around it.
      const across = (((x - middle[0]) / reach[0] + 1) * columns) / 2 - 0.5;
      const up = (((y - middle[1]) / reach[1] + 1) * rows) / 2 - 0.5;
      const [left, low] = [Math.floor(across), Math.floor(up)];
      for (const [column, row] of [
        [left, low],
        [left + 1, low],
        [left, low + 1],
        [left + 1, low + 1],
      ]) {
        if (column < 0 || row < 0 || column >= columns || row >= rows) continue;
        values[prompt[i]][row * columns + column] +=
          weight * (1 - Math.abs(across - column)) * (1 - Math.abs(up - row));
      }
    }
    values.forEach((each, k) => {
      if (totals[k]) this.blur(each, 1 / (totals[k] * 2 * Math.PI * found.bandwidth ** 2));
    });
  }

  // By the kernel along rows, then along columns.
  blur(values, scale) {
    const { columns, rows, kernels, between } = this;
    spread(values, between, kernels[0], rows, columns, columns, 1, 1);
    spread(between, values, kernels[1], columns, rows, 1, columns, scale);
  }

  // `place(x, y)` gives the pixels of a place of the map, which is seen flat; `page` is its colour.
  paint(pen, at, place, page) {
    const { middle, reach: seen } = this.boxAt(at);
    const box = { middle, reach: seen.map((each) => BEYOND * each) };
    this.fill(at, box);
    const { columns, rows, values, canvas, found } = this;
    const [own, dark] = [rgb(page), isDark(page)];
    const context = canvas.getContext("2d");
    const picture = context.createImageData(columns, rows);
    for (let row = 0; row < rows; row++)
      for (let column = 0; column < columns; column++) {
        const from = row * columns + column;
        const shades = values.map((each) => Math.sqrt(Math.min(1, each[from] / found.highest)));
        // Rows of a picture run downwards.
        const to = 4 * ((rows - 1 - row) * columns + column);
        picture.data.set(shaded(own, dark, shades), to);
        picture.data[to + 3] = 255;
      }
    context.putImageData(picture, 0, 0);
    const [[x, y], [wide, high]] = [box.middle, box.reach];
    const [left, top] = place(x - wide, y + high);
    const [right, bottom] = place(x + wide, y - high);
    pen.imageSmoothingEnabled = true;
    pen.imageSmoothingQuality = "high";
    pen.drawImage(canvas, left, top, right - left, bottom - top);
  }
}

// A Gaussian from its middle on, in cells, to where also its square root can't be seen.
const kernelOf = (sigma) =>
  Float32Array.from({ length: Math.ceil(4.5 * sigma) + 1 }, (_, k) =>
    Math.exp(-0.5 * (k / sigma) ** 2),
  );

// Each of `n` lines of `length` cells, whose starts are `apart` and cells `step` from each other: the
// sum of kernels at each cell, times `scale`.
const spread = (from, to, kernel, n, length, apart, step, scale) => {
  to.fill(0);
  for (let line = 0; line < n; line++)
    for (let i = 0; i < length; i++) {
      const value = from[line * apart + i * step] * scale;
      if (!value) continue;
      const [first, last] = [
        Math.max(0, i - kernel.length + 1),
        Math.min(length - 1, i + kernel.length - 1),
      ];
      for (let j = first; j <= last; j++)
        to[line * apart + j * step] += value * kernel[Math.abs(j - i)];
    }
};
