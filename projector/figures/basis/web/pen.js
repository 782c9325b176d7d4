// The canvas: lines, arrows and words in the colours of the page's theme.

const COLOURS = {
  light: {
    first: "#c2410c",
    second: "#1d5fbf",
    circle: "#7c3aed",
    point: "#0f766e",
    mark: "#b91c1c",
  },
  dark: {
    first: "#fb923c",
    second: "#7cb5ff",
    circle: "#c4a5ff",
    point: "#4fd1b5",
    mark: "#ff8a8a",
  },
};

export class Pen {
  constructor(canvas) {
    this.canvas = canvas;
  }

  // A new picture of what the view shows; the style is that of the page about it.
  begin(view, style) {
    const { canvas } = this;
    const { size } = view;
    const ratio = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(size * ratio)) {
      canvas.width = canvas.height = Math.round(size * ratio);
    }
    this.view = view;
    this.ink = style.color;
    const [r, g, b] = (this.ink.match(/[\d.]+/g) ?? [0, 0, 0]).map(Number);
    const isDark = 0.3 * r + 0.59 * g + 0.11 * b > (this.ink.startsWith("color(") ? 0.5 : 128);
    this.colours = COLOURS[isDark ? "dark" : "light"];
    this.paper = style.getPropertyValue("--plane-paper").trim() || style.backgroundColor;
    const drawn = canvas.getContext("2d");
    this.drawn = drawn;
    drawn.setTransform(ratio, 0, 0, ratio, 0, 0);
    drawn.fillStyle = this.paper;
    drawn.fillRect(0, 0, size, size);
    drawn.font = `12px ${style.fontFamily || "sans-serif"}`;
    drawn.lineJoin = "round";
  }

  // All places but those of words and of dots are of the plane.
  line(points, colour, width, alpha = 1) {
    const { drawn, view } = this;
    drawn.beginPath();
    for (const p of points) drawn.lineTo(...view.toScreen(p));
    drawn.strokeStyle = colour;
    drawn.lineWidth = width;
    drawn.globalAlpha = alpha;
    drawn.stroke();
    drawn.globalAlpha = 1;
  }

  arrow(from, to, colour, { width = 3, alpha = 1 } = {}) {
    const { drawn, view } = this;
    const [x0, y0] = view.toScreen(from);
    const [x1, y1] = view.toScreen(to);
    const length = Math.hypot(x1 - x0, y1 - y0);
    if (length < 1) return;
    const head = Math.min(11, length / 2);
    const [ux, uy] = [(x1 - x0) / length, (y1 - y0) / length];
    drawn.globalAlpha = alpha;
    drawn.strokeStyle = drawn.fillStyle = colour;
    drawn.lineWidth = width;
    drawn.beginPath();
    drawn.moveTo(x0, y0);
    drawn.lineTo(x1 - ux * head * 0.8, y1 - uy * head * 0.8);
    drawn.stroke();
    drawn.beginPath();
    drawn.moveTo(x1, y1);
    drawn.lineTo(x1 - ux * head - uy * head * 0.5, y1 - uy * head + ux * head * 0.5);
    drawn.lineTo(x1 - ux * head + uy * head * 0.5, y1 - uy * head - ux * head * 0.5);
    drawn.fill();
    drawn.globalAlpha = 1;
  }

  dot([x, y], radius, colour, { isFull, alpha }) {
    const { drawn } = this;
    drawn.beginPath();
    drawn.arc(x, y, radius, 0, 2 * Math.PI);
    drawn.fillStyle = drawn.strokeStyle = colour;
    drawn.globalAlpha = alpha;
    drawn.lineWidth = 1.4;
    if (isFull) drawn.fill();
    else drawn.stroke();
    drawn.globalAlpha = 1;
  }

  // The quarter where both coordinates are above 0.
  shadeOrthant() {
    const { drawn } = this;
    const half = this.view.size / 2;
    drawn.fillStyle = this.colours.point;
    drawn.globalAlpha = 0.13;
    drawn.fillRect(half, 0, half, half);
    drawn.globalAlpha = 1;
  }

  words(text, [x, y], colour, align) {
    const { drawn } = this;
    drawn.textAlign = align;
    drawn.textBaseline = "middle";
    drawn.lineWidth = 3.5;
    drawn.strokeStyle = this.paper;
    drawn.strokeText(text, x, y);
    drawn.fillStyle = colour;
    drawn.fillText(text, x, y);
  }

  widthOf(text) {
    return this.drawn.measureText(text).width;
  }
}
