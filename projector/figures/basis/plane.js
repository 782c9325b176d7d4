// A plane before and after a linear map, animated between the two: grid, basis vectors, circle and
// points. A 2 × 2 matrix can be dragged, and a ReLU applied behind it. All text is set as text.

const FORWARD_MS = 1400; // From before to after.
const WAIT_MS = 500; // At either end, before it plays back.
const LINES = 5; // Of the grid on each side of the origin.
const MOST_LABELS = 28;
const COLOURS = {
  light: { first: "#c2410c", second: "#1d5fbf", circle: "#7c3aed", point: "#0f766e", mark: "#b91c1c" },
  dark: { first: "#fb923c", second: "#7cb5ff", circle: "#c4a5ff", point: "#4fd1b5", mark: "#ff8a8a" },
};
const PRESETS = {
  "a stretch and a shear": [[1.4, 0.6], [0.2, 0.8]],
  "a turn by 60°": [[0.5, -0.866], [0.866, 0.5]],
  "a stretch": [[2, 0], [0, 0.5]],
  "a shear": [[1, 1], [0, 1]],
  "a reflection": [[0, 1], [1, 0]],
  "a projection": [[0.5, 0.5], [0.5, 0.5]],
  "no change": [[1, 0], [0, 1]],
};

const fixed = (value, digits = 2) => {
  const text = Math.abs(value) >= 1e4 ? value.toExponential(1) : value.toFixed(digits);
  return (Number(text) === 0 ? text.replace("-", "") : text).replaceAll("-", "−");
};
const percent = (share) => `${fixed(100 * share, 100 * share < 9.95 ? 1 : 0)}\u00a0%`;
const make = (name, className, text) => {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = String(text);
  return made;
};
const times = ([[a, b], [c, d]], [x, y]) => [a * x + b * y, c * x + d * y];
const mix = (p, q, t) => [p[0] + (q[0] - p[0]) * t, p[1] + (q[1] - p[1]) * t];
const clamp = (x, low, high) => Math.max(low, Math.min(high, x));
const inOrthant = (points) => points.filter(([x, y]) => x > 0 && y > 0).length / points.length;

export function determinant([[a, b], [c, d]]) {
  return a * d - b * c;
}

// Of [[a, b], [c, d]], the larger one first.
export function singularValues([[a, b], [c, d]]) {
  const sum = Math.hypot(a + d, c - b);
  const difference = Math.hypot(a - d, b + c);
  return [(sum + difference) / 2, Math.abs(sum - difference) / 2];
}

class Plane {
  constructor(root, send) {
    this.root = root;
    this.send = send;
    this.t = 0;
    this.isPlaying = false;
    this.hasReLU = false;
    this.still = matchMedia("(prefers-reduced-motion: reduce)");
    root.classList.add("plane");
    this.observer = new ResizeObserver(() => this.draw());
    // Another theme changes the colour of text, which takes a moment in the style sheet.
    root.addEventListener("transitionend", (this.restyle = () => this.draw()));
  }

  update(data, send) {
    this.send = send;
    const text = JSON.stringify(data);
    if (text === this.text) return;
    const isSame = this.data && this.data.title === data.title && this.data.kind === data.kind;
    this.text = text;
    // What was dragged comes back from the server: nothing moves.
    if (isSame && data.kind === "toy" && this.matrix && JSON.stringify(this.matrix) === JSON.stringify(data.matrix)) {
      this.data = data;
      return;
    }
    this.data = data;
    this.matrix = data.matrix.map((row) => [...row]);
    if (!isSame) {
      this.stop();
      this.t = data.kind === "skip" ? 1 : 0;
      this.hasReLU = data.kind === "neurons" || Boolean(data.relu);
    }
    this.build();
    this.follow();
  }

  build() {
    const { data } = this;
    const held = this.root.getRootNode().activeElement?.dataset?.control;
    this.root.replaceChildren();
    this.canvas = make("canvas");
    this.canvas.tabIndex = 0;
    this.canvas.dataset.control = "canvas";
    this.canvas.setAttribute("role", "img");
    this.stage = make("div", "stage");
    this.tip = make("div", "tip");
    this.tip.hidden = true;
    this.stage.append(this.canvas, this.tip);
    this.side = make("div", "side");
    const left = make("div", "left");
    left.append(this.stage, this.buildControls());
    this.root.append(left, this.side);
    if (data.kind === "toy") this.buildToy();
    this.facts = make("dl", "facts");
    this.side.append(this.facts);
    this.buildWords();
    this.canvas.addEventListener("pointermove", (event) => this.point(event));
    this.canvas.addEventListener("pointerleave", () => (this.tip.hidden = true));
    this.root.onkeydown = (event) => this.press(event);
    this.observer.disconnect();
    this.observer.observe(this.stage);
    if (held) this.root.querySelector(`[data-control="${held}"]`)?.focus({ preventScroll: true });
  }

  buildControls() {
    const { data } = this;
    const bar = make("div", "controls");
    this.playButton = make("button", "play");
    this.playButton.type = "button";
    this.playButton.dataset.control = "play";
    this.playButton.addEventListener("click", () => this.toggle());
    this.scrub = make("input");
    this.scrub.type = "range";
    this.scrub.min = "0";
    this.scrub.step = "0.01";
    this.scrub.dataset.control = "scrub";
    this.scrub.setAttribute("aria-label", "From before to after");
    this.scrub.addEventListener("input", () => {
      const to = Number(this.scrub.value);
      this.stop();
      this.go(to);
    });
    bar.append(this.playButton, this.scrub);
    if (["toy", "neurons"].includes(data.kind)) {
      const label = make("label", "relu");
      const box = make("input");
      box.type = "checkbox";
      box.checked = this.hasReLU;
      box.dataset.control = "relu";
      box.addEventListener("change", () => {
        this.hasReLU = box.checked;
        this.t = Math.min(this.t, this.end);
        this.follow();
      });
      label.append(box, make("span", "", data.kind === "toy" ? "ReLU after the matrix" : "Positive orthant"));
      bar.append(label);
    }
    const save = make("button", "save", "PNG");
    save.type = "button";
    save.setAttribute("aria-label", "Save as PNG");
    save.title = "Save the picture as PNG";
    save.addEventListener("click", () => this.savePicture());
    bar.append(save);
    return bar;
  }

  // Two tips that can be dragged, or moved by arrow keys; the matrix as four fields.
  buildToy() {
    this.tips = ["first", "second"].map((name, column) => {
      const tip = make("button", `handle ${name}`);
      tip.type = "button";
      tip.dataset.control = name;
      tip.addEventListener("pointerdown", (event) => {
        event.preventDefault();
        tip.focus({ preventScroll: true });
        tip.setPointerCapture(event.pointerId);
        this.stop();
        this.t = 1;
        this.held = this.view;
        const move = (at) => {
          const box = this.canvas.getBoundingClientRect();
          const [x, y] = this.placeOf(at.clientX - box.left, at.clientY - box.top);
          this.setColumn(column, x, y);
        };
        const drop = () => {
          tip.removeEventListener("pointermove", move);
          this.held = null;
          this.changed();
        };
        tip.addEventListener("pointermove", move);
        tip.addEventListener("pointerup", drop, { once: true });
        tip.addEventListener("pointercancel", drop, { once: true });
        this.follow();
      });
      this.stage.append(tip);
      return tip;
    });
    const matrix = make("fieldset", "matrix");
    matrix.append(make("legend", "", "Matrix"));
    this.fields = [0, 1].map((row) =>
      [0, 1].map((column) => {
        const field = make("input");
        field.type = "number";
        field.step = "0.1";
        field.dataset.control = `field ${row} ${column}`;
        field.setAttribute("aria-label", `Row ${row + 1}, column ${column + 1}`);
        field.addEventListener("change", () => {
          const value = Number(field.value);
          if (Number.isFinite(value)) this.matrix[row][column] = clamp(value, -9, 9);
          this.stop();
          this.t = 1;
          this.changed();
        });
        matrix.append(field);
        return field;
      }),
    );
    const list = make("select");
    list.setAttribute("aria-label", "Example");
    list.dataset.control = "example";
    for (const name of ["an example …", ...Object.keys(PRESETS)]) list.append(make("option", "", name));
    list.addEventListener("change", () => {
      const chosen = PRESETS[list.value];
      list.selectedIndex = 0;
      if (!chosen) return;
      this.matrix = chosen.map((row) => [...row]);
      this.t = 0;
      this.changed();
      this.play();
    });
    this.side.append(matrix, list);
  }

  buildWords() {
    const { data } = this;
    for (const share of data.shares ?? []) this.side.append(this.shareLine(share));
    for (const note of data.notes ?? []) this.side.append(make("p", "note", note));
  }

  shareLine(share) {
    const line = make("p", "share");
    const name = share.name.slice(0, 1).toUpperCase() + share.name.slice(1);
    if (share.value === null) {
      line.textContent = `${name}: not given, because ${share.reason}`;
      return line;
    }
    line.append(make("span", "", `${name}: `), make("b", "", percent(share.value)));
    if (share.control !== null) {
      const has = share.control_low !== null && share.control_high !== null;
      const band = has ? ` (5–95 %: ${percent(share.control_low)} to ${percent(share.control_high)})` : "";
      line.append(make("span", "control", ` · ${share.control_name}: ${percent(share.control)}${band}`));
    }
    return line;
  }

  setColumn(column, x, y) {
    const round = (value) => Math.round(clamp(value, -9, 9) * 100) / 100;
    this.matrix[0][column] = round(x);
    this.matrix[1][column] = round(y);
    this.follow();
  }

  changed() {
    this.follow();
    this.send?.("matrix", this.matrix);
  }

  // What of the picture follows: fields, facts, and the canvas.
  follow() {
    this.fields?.forEach((row, i) =>
      row.forEach((field, j) => (field.value = String(Math.round(this.matrix[i][j] * 1000) / 1000))),
    );
    this.tellFacts();
    this.draw();
  }

  get end() {
    return this.data.kind === "toy" && this.hasReLU ? 2 : 1;
  }

  get pointsAfter() {
    const { data } = this;
    return data.kind === "toy" ? data.points_before.map((p) => times(this.matrix, p)) : data.points_after;
  }

  tellFacts() {
    const { data, matrix } = this;
    const facts = [];
    if (this.hasMatrix) {
      const values = data.kind === "toy" ? singularValues(matrix) : data.singular_values;
      facts.push([data.kind === "toy" || values.length < 3 ? "Singular values" : "Top singular values", values]);
      if (data.is_same_plane) {
        const found = determinant(matrix);
        const turned = found < -1e-9 ? ": the plane is flipped" : Math.abs(found) < 1e-9 ? ": the plane falls on a line" : "";
        facts.push(["Determinant", `${fixed(found)}${turned}`]);
      }
    }
    if (data.kind === "toy" && data.points_before.length) {
      facts.push(["Points in the positive orthant before", percent(inOrthant(data.points_before))]);
      facts.push(["Points in the positive orthant after", percent(inOrthant(this.pointsAfter))]);
      if (this.hasReLU) facts.push(["What the ReLU does", "It moves every point outside the orthant onto the orthant's edge."]);
    } else if (data.kind === "neurons") {
      for (const [when, share] of [["before", data.orthant_before], ["after", data.orthant_after]])
        if (share && share.value !== null) facts.push([`Points in the positive orthant ${when}`, this.besides(share)]);
    }
    for (const arrow of data.arrows ?? []) facts.push([`Length: ${arrow.name}`, fixed(arrow.length)]);
    this.facts.replaceChildren();
    for (const [name, value] of facts) {
      const shown = make("dd");
      if (Array.isArray(value)) this.bars(shown, value);
      else shown.textContent = value;
      const line = make("div");
      line.append(make("dt", "", name), shown);
      this.facts.append(line);
    }
  }

  besides(share) {
    const control = share.control === null ? "" : ` (${share.control_name}: ${percent(share.control)})`;
    return percent(share.value) + control;
  }

  bars(place, values) {
    place.append(make("span", "numbers", values.slice(0, 4).map((value) => fixed(value)).join("  ")));
    if (values.length < 3) return;
    const row = make("span", "spectrum");
    row.setAttribute("aria-hidden", "true");
    for (const [k, value] of values.entries()) {
      const bar = make("span", k < 2 ? "top" : "");
      bar.style.height = `${Math.max(1, (40 * value) / (values[0] || 1))}px`;
      bar.title = fixed(value, 3);
      row.append(bar);
    }
    place.append(row);
  }

  // Animation.

  toggle() {
    if (this.isPlaying) this.stop();
    else this.play();
  }

  play() {
    if (this.still.matches) {
      this.go(this.t < this.end ? Math.floor(this.t) + 1 : 0);
      return;
    }
    this.isPlaying = true;
    if (this.t >= this.end) this.t = 0;
    this.way = 1;
    this.waitUntil = 0;
    this.last = performance.now();
    const step = (now) => {
      if (!this.isPlaying) return;
      if (now >= this.waitUntil) {
        const next = this.t + (this.way * (now - this.last)) / FORWARD_MS;
        const passed = this.way > 0 && this.t < 1 && next >= 1 && this.end === 2 ? 1 : next;
        this.t = clamp(passed, 0, this.end);
        if (this.t === 0 || this.t === this.end) this.way = this.t === 0 ? 1 : -1;
        if (this.t === 0 || this.t === 1 || this.t === this.end) this.waitUntil = now + WAIT_MS;
      }
      this.last = now;
      this.draw();
      this.frame = requestAnimationFrame(step);
    };
    this.frame = requestAnimationFrame(step);
    this.draw();
  }

  stop() {
    this.isPlaying = false;
    cancelAnimationFrame(this.frame);
    if (this.canvas) this.draw();
  }

  go(t) {
    this.t = clamp(t, 0, this.end);
    this.draw();
  }

  press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const control = event.target.dataset?.control ?? "";
    const isHandle = control === "first" || control === "second";
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    if (event.key === " " && (control === "canvas" || isHandle || control === "scrub")) this.toggle();
    else if (isHandle && steps[event.key]) {
      const column = control === "first" ? 0 : 1;
      const size = event.shiftKey ? 0.01 : 0.1;
      const [dx, dy] = steps[event.key].map((way) => way * size);
      this.stop();
      this.t = 1;
      this.setColumn(column, this.matrix[0][column] + dx, this.matrix[1][column] + dy);
      clearTimeout(this.telling);
      this.telling = setTimeout(() => this.changed(), 500);
    } else if (control === "canvas" && steps[event.key]) {
      const [dx, dy] = steps[event.key];
      this.stop();
      this.go(Math.round(20 * this.t + dx + dy) / 20);
    } else return;
    // The page's own keys are not meant.
    event.preventDefault();
    event.stopPropagation();
  }

  // Places.

  // What the plane after is drawn by, so that both fit: a map of a model may stretch thirtyfold.
  get factor() {
    const [top] = singularValues(this.matrix);
    return this.data.kind === "toy" || (top > 0.4 && top < 2.5) || top === 0 ? 1 : 1 / top;
  }

  // The matrix at a moment: a turn by a part of the angle and a part of the stretch, where it turns.
  matrixAt(t) {
    const f = this.factor;
    const [[a, b], [c, d]] = this.matrix.map((row) => row.map((value) => value * f));
    const part = ([[p, q], [r, s]]) => [[1 + t * (p - 1), t * q], [t * r, 1 + t * (s - 1)]];
    if (a * d - b * c <= 0) return part([[a, b], [c, d]]);
    const angle = Math.atan2(c - b, a + d);
    const [x, y] = [Math.cos(angle), Math.sin(angle)];
    const [[p, q], [r, s]] = part([[x * a + y * c, x * b + y * d], [x * c - y * a, x * d - y * b]]);
    const [u, v] = [Math.cos(t * angle), Math.sin(t * angle)];
    return [[u * p - v * r, u * q - v * s], [v * p + u * r, v * q + u * s]];
  }

  // Behind the matrix, a part of the ReLU.
  fold(p) {
    return this.t <= 1 ? p : mix(p, [Math.max(0, p[0]), Math.max(0, p[1])], this.t - 1);
  }

  pointsNow() {
    const { data } = this;
    const t = Math.min(1, this.t);
    if (data.kind === "toy" || data.follows_matrix) {
      const now = this.matrixAt(t);
      return data.points_before.map((p) => this.fold(times(now, p)));
    }
    return data.points_before.map((p, k) => mix(p, this.scaled(data.points_after[k]), t));
  }

  scaled([x, y]) {
    return [x * this.factor, y * this.factor];
  }

  extent() {
    const { data } = this;
    const points = [...data.points_before, ...this.pointsAfter.map((p) => this.scaled(p))];
    const far = points.reduce((most, [x, y]) => Math.max(most, Math.abs(x), Math.abs(y)), 0);
    const least = data.kind === "toy" ? 2.2 : 1.3;
    const stretched = this.hasMatrix ? singularValues(this.matrix)[0] * this.factor : 1;
    return 1.12 * Math.max(least, stretched, Math.min(far, 7));
  }

  get hasMatrix() {
    return ["map", "toy"].includes(this.data.kind);
  }

  // The arrows by the longest of them.
  get arrows() {
    const { arrows } = this.data;
    const most = arrows.reduce((far, each) => Math.max(far, Math.hypot(each.x, each.y)), 0) || 1;
    return arrows.map((each) => [each.x / most, each.y / most]);
  }

  frameNow(size) {
    if (this.data.kind !== "skip") return { size, reach: this.extent(), centre: [0, 0] };
    const points = [[0, 0], ...this.arrows];
    const ends = [0, 1].map((axis) => points.map((p) => p[axis])).map((all) => [Math.min(...all), Math.max(...all)]);
    const reach = 0.62 * Math.max(...ends.map(([low, high]) => high - low));
    return { size, reach, centre: ends.map(([low, high]) => (low + high) / 2) };
  }

  toScreen([x, y]) {
    const { size, reach, centre } = this.view;
    return [size / 2 + ((x - centre[0]) / reach) * (size / 2), size / 2 - ((y - centre[1]) / reach) * (size / 2)];
  }

  placeOf(x, y) {
    const { size, reach } = this.view;
    return [((x - size / 2) * reach) / (size / 2), (-(y - size / 2) * reach) / (size / 2)];
  }

  // Drawing.

  draw() {
    const size = this.stage?.clientWidth;
    if (!size) return;
    const ratio = window.devicePixelRatio || 1;
    const style = getComputedStyle(this.root);
    if (this.canvas.width !== Math.round(size * ratio)) {
      this.canvas.width = this.canvas.height = Math.round(size * ratio);
    }
    this.view = this.held ? { ...this.held, size } : this.frameNow(size);
    this.ink = style.color;
    const [r, g, b] = (this.ink.match(/[\d.]+/g) ?? [0, 0, 0]).map(Number);
    const isDark = 0.3 * r + 0.59 * g + 0.11 * b > (this.ink.startsWith("color(") ? 0.5 : 128);
    this.colours = COLOURS[isDark ? "dark" : "light"];
    this.root.style.setProperty("--plane-circle", this.colours.circle);
    this.paper = style.getPropertyValue("--plane-paper").trim() || style.backgroundColor;
    const pen = this.canvas.getContext("2d");
    this.pen = pen;
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.fillStyle = this.paper;
    pen.fillRect(0, 0, size, size);
    pen.font = `12px ${style.fontFamily || "sans-serif"}`;
    pen.lineJoin = "round";
    if (this.hasReLU) this.drawOrthant();
    this.drawGrid();
    if (this.data.kind === "skip") this.drawArrows();
    else this.drawPoints();
    if (this.hasMatrix) this.drawBasis();
    this.drawWords();
    this.showState();
  }

  line(points, colour, width, alpha = 1) {
    const { pen } = this;
    pen.beginPath();
    for (const p of points) pen.lineTo(...this.toScreen(p));
    pen.strokeStyle = colour;
    pen.lineWidth = width;
    pen.globalAlpha = alpha;
    pen.stroke();
    pen.globalAlpha = 1;
  }

  drawOrthant() {
    const { pen, view } = this;
    pen.fillStyle = this.colours.point;
    pen.globalAlpha = 0.13;
    pen.fillRect(view.size / 2, 0, view.size / 2, view.size / 2);
    pen.globalAlpha = 1;
  }

  drawGrid() {
    const { reach } = this.view;
    const far = reach * 1.02 + Math.hypot(...this.view.centre);
    const n = Math.min(24, Math.ceil(far));
    for (let k = -n; k <= n; k++) {
      const [width, alpha] = k === 0 ? [1.2, 0.55] : [1, 0.1];
      this.line([[k, -far], [k, far]], this.ink, width, alpha);
      this.line([[-far, k], [far, k]], this.ink, width, alpha);
    }
    if (!this.hasMatrix) return;
    const now = this.matrixAt(Math.min(1, this.t));
    const ends = Math.max(LINES, Math.ceil(reach * 1.6));
    const steps = this.t > 1 ? 48 : 1;
    const along = (at) =>
      Array.from({ length: steps + 1 }, (_, i) => this.fold(times(now, at(ends * ((2 * i) / steps - 1)))));
    for (let k = -ends; k <= ends; k++) {
      const alpha = k === 0 ? 0.75 : 0.3;
      this.line(along((s) => [k, s]), this.colours.second, k === 0 ? 1.4 : 1, alpha);
      this.line(along((s) => [s, k]), this.colours.first, k === 0 ? 1.4 : 1, alpha);
    }
    const circle = Array.from({ length: 91 }, (_, i) => (i * Math.PI) / 45);
    const round = circle.map((a) => [Math.cos(a), Math.sin(a)]);
    this.line(round, this.colours.circle, 1, 0.3);
    this.line(round.map((p) => this.fold(times(now, p))), this.colours.circle, 2.2);
  }

  arrow(from, to, colour, width = 3) {
    const { pen } = this;
    const [x0, y0] = this.toScreen(from);
    const [x1, y1] = this.toScreen(to);
    const length = Math.hypot(x1 - x0, y1 - y0);
    if (length < 1) return;
    const head = Math.min(11, length / 2);
    const [ux, uy] = [(x1 - x0) / length, (y1 - y0) / length];
    pen.strokeStyle = pen.fillStyle = colour;
    pen.lineWidth = width;
    pen.beginPath();
    pen.moveTo(x0, y0);
    pen.lineTo(x1 - ux * head * 0.8, y1 - uy * head * 0.8);
    pen.stroke();
    pen.beginPath();
    pen.moveTo(x1, y1);
    pen.lineTo(x1 - ux * head - uy * head * 0.5, y1 - uy * head + ux * head * 0.5);
    pen.lineTo(x1 - ux * head + uy * head * 0.5, y1 - uy * head - ux * head * 0.5);
    pen.fill();
  }

  drawBasis() {
    const { first, second } = this.colours;
    const now = this.matrixAt(Math.min(1, this.t));
    const tips = [[1, 0], [0, 1]].map((p) => this.fold(times(now, p)));
    tips.forEach((tip, k) => {
      this.arrow([0, 0], tip, [first, second][k]);
      const beyond = Math.hypot(...tip) || 1;
      const away = (this.tips ? 25 : 15) / (this.view.size / 2 / this.view.reach);
      const at = tip.map((value) => value * (1 + away / beyond));
      this.words(`e${"₁₂"[k]}`, this.toScreen(at), [first, second][k], "center");
    });
    this.tips?.forEach((handle, k) => {
      const column = [this.matrix[0][k], this.matrix[1][k]];
      const [x, y] = this.toScreen(this.t >= 1 ? this.fold(column) : tips[k]);
      handle.style.color = [first, second][k];
      handle.style.left = `${x}px`;
      handle.style.top = `${y}px`;
      const words = `Where e${"₁₂"[k]} goes: (${fixed(column[0])}, ${fixed(column[1])}). Drag it, or press arrow keys.`;
      handle.setAttribute("aria-label", words);
      handle.title = words;
    });
  }

  drawPoints() {
    const { data, colours, pen } = this;
    const now = (this.shown = this.pointsNow());
    const [chosen, weights] = this.mixture();
    const kept = this.hasReLU ? (data.kind === "toy" ? this.pointsAfter : data.points_before) : null;
    const { reach } = this.view;
    now.forEach((p, k) => {
      if (!data.follows_matrix && !data.kind === "toy" && this.t > 0.02)
        this.line([data.points_before[k], p], this.ink, 1, 0.12);
    });
    if (chosen >= 0 && now[chosen])
      weights.forEach((weight, k) => {
        if (weight > 0.005 && now[k]) this.line([data.points_before[k], now[chosen]], colours.mark, 1 + 5 * weight, 0.25 + 0.6 * weight);
      });
    now.forEach((p, k) => {
      const isIn = Math.abs(p[0]) <= reach && Math.abs(p[1]) <= reach;
      const [x, y] = this.toScreen(p.map((value) => clamp(value, -reach * 0.985, reach * 0.985)));
      const isKept = !kept || (kept[k][0] > 0 && kept[k][1] > 0);
      pen.beginPath();
      pen.arc(x, y, k === chosen ? 6 : now.length > 150 ? 2.5 : 4, 0, 2 * Math.PI);
      pen.fillStyle = pen.strokeStyle = k === chosen ? colours.mark : isKept ? colours.point : this.ink;
      pen.globalAlpha = isKept ? 0.9 : 0.5;
      pen.lineWidth = 1.4;
      if (isIn && isKept) pen.fill();
      else pen.stroke();
      pen.globalAlpha = 1;
    });
    this.drawLabels(now, chosen);
  }

  // The point whose combination is drawn, and its coefficients: the one pointed at where all are known.
  mixture() {
    const { pattern, weights, selected } = this.data;
    const chosen = (pattern ? this.pointed : null) ?? selected ?? -1;
    return [chosen, (pattern ? pattern[chosen] : weights) ?? []];
  }

  drawLabels(now, chosen) {
    const labels = this.data.labels ?? [];
    const taken = [];
    const order = now.map((_, k) => k).sort((a, b) => (b === chosen) - (a === chosen));
    if (now.length > MOST_LABELS) order.length = chosen >= 0 ? 1 : 0;
    for (const k of order) {
      const text = this.labelOf(labels[k] ?? "");
      if (!text) continue;
      const [x, y] = this.toScreen(now[k]);
      const width = this.pen.measureText(text).width;
      const left = x + 8 + width > this.view.size - 4 ? x - 8 - width : x + 8;
      const box = [left - 2, y - 8, left + width + 2, y + 8];
      if (taken.some((b) => box[0] < b[2] && b[0] < box[2] && box[1] < b[3] && b[1] < box[3])) continue;
      taken.push(box);
      this.words(text, [left, y], k === chosen ? this.colours.mark : this.ink, "left");
    }
  }

  labelOf(text) {
    const shown = String(text).replaceAll("\n", "⏎").replaceAll("\t", "⇥").replaceAll(" ", "␣");
    return shown.length > 16 ? `${shown.slice(0, 15)}…` : shown;
  }

  // x stays; what is added slides to its tip, and the sum leads there.
  drawArrows() {
    const [x, added, sum] = this.arrows;
    const { first, second, circle } = this.colours;
    const t = Math.min(1, this.t);
    const from = mix([0, 0], x, t);
    const to = [added[0] + from[0], added[1] + from[1]];
    this.pen.globalAlpha = t;
    this.arrow([0, 0], sum, circle, 4);
    this.pen.globalAlpha = 1;
    this.arrow([0, 0], x, second);
    this.arrow(from, to, first);
    const names = this.data.arrows.map((each) => each.name);
    const rows = [[names[0], mix([0, 0], x, 0.5), second, 0, 16], [names[1], mix(from, to, 0.5), first, 10, 0]];
    if (t > 0.5) rows.push([names[2], mix([0, 0], sum, 0.5), circle, 0, -16]);
    for (const [name, at, colour, right, down] of rows) {
      const [left, top] = this.toScreen(at);
      const own = this.pen.measureText(name).width + 8;
      const start = right ? left + right : left - own / 2;
      this.words(name, [clamp(start, 6, this.view.size - own), top + down], colour, "left");
    }
  }

  words(text, [x, y], colour, align) {
    const { pen } = this;
    pen.textAlign = align;
    pen.textBaseline = "middle";
    pen.lineWidth = 3.5;
    pen.strokeStyle = this.paper;
    pen.strokeText(text, x, y);
    pen.fillStyle = colour;
    pen.fillText(text, x, y);
  }

  drawWords() {
    const { data, view } = this;
    const t = this.t;
    const isBefore = t < 0.5;
    const moment = t > 1.5 ? "after the ReLU" : isBefore ? "before" : "after";
    const space = isBefore ? data.space_before : data.space_after;
    const head = data.kind === "toy" ? moment : data.kind === "skip" ? data.space_after : `${moment}: ${space}`;
    this.words(head, [10, 14], this.ink, "left");
    if (!isBefore && this.factor !== 1) {
      const by = `Lengths are divided by ${fixed(1 / this.factor, 1 / this.factor < 0.1 ? 4 : 2)}.`;
      this.words(by, [10, view.size - 14], this.ink, "left");
    }
    const [across, up] = isBefore ? data.axes_before : data.axes_after;
    const [x, y] = this.toScreen([0, 0]);
    this.words(across, [view.size - 8, y + 12], this.ink, "right");
    this.words(up, [x + 8, 32], this.ink, "left");
  }

  showState() {
    const { root, t } = this;
    this.scrub.max = String(this.end);
    this.scrub.value = String(t);
    const percentText = `${Math.round(100 * Math.min(1, t))} % of the way`;
    this.scrub.setAttribute("aria-valuetext", t > 1 ? `${Math.round(100 * (t - 1))} % of the ReLU` : percentText);
    this.playButton.textContent = this.isPlaying ? "❚❚ Pause" : "▶ Play";
    this.canvas.setAttribute("aria-label", `${this.data.title}: a plane, ${percentText} from before to after. Space plays, arrow keys move.`);
    root.dataset.t = t.toFixed(3);
    root.dataset.playing = String(this.isPlaying);
    root.dataset.points = String((this.data.points_before ?? []).length);
    root.dataset.chosen = String(this.mixture()[0]);
    root.dataset.matrix = JSON.stringify(this.matrix);
    root.dataset.paintedAt = String(performance.timeOrigin + performance.now());
  }

  nearest(event) {
    if (!this.shown || !this.view) return -1;
    const box = this.canvas.getBoundingClientRect();
    const [px, py] = [event.clientX - box.left, event.clientY - box.top];
    let [found, least] = [-1, 12];
    this.shown.forEach((p, k) => {
      const [x, y] = this.toScreen(p);
      const far = Math.hypot(x - px, y - py);
      if (far < least) [found, least] = [k, far];
    });
    return found;
  }

  point(event) {
    const k = this.data.kind === "skip" ? -1 : this.nearest(event);
    const label = k >= 0 ? this.data.labels?.[k] : "";
    if (this.data.pattern && k >= 0 && k !== this.pointed) {
      this.pointed = k;
      this.draw();
    }
    this.tip.hidden = !label;
    if (!label) return;
    const weight = this.mixture()[1][k];
    const share = weight === undefined || weight === null ? "" : ` · coefficient ${fixed(weight, 3)}`;
    this.tip.textContent = `${this.labelOf(label)}${share}`;
    const [x, y] = this.toScreen(this.shown[k]);
    this.tip.style.left = `${Math.min(x + 10, this.view.size - this.tip.offsetWidth - 4)}px`;
    this.tip.style.top = `${y + 12}px`;
  }

  savePicture() {
    const link = document.createElement("a");
    link.download = `${this.data.title.replace(/[^\w.]+/g, "-").replace(/^-+|-+$/g, "")}.png`;
    link.href = this.canvas.toDataURL("image/png");
    link.click();
  }

  destroy() {
    this.stop();
    clearTimeout(this.telling);
    this.observer.disconnect();
    this.root.removeEventListener("transitionend", this.restyle);
    this.root.onkeydown = null;
    this.root.replaceChildren();
  }
}

const SHOWN = new WeakMap(); // root → what is drawn in it.

// Draws `data`, a PlaneView as JSON, into `root`, or shows new data there; gives a function that takes
// it down. Beyond a PlaneView's fields data may hold `relu` (whether it is on at first), `selected` (a point)
// and `weights` (one a point: lines to the selected one) or a `pattern` of them (a row a point). The matrix of a "toy" can be dragged.
// `onEvent(name, value)` tells of "matrix" (what was dragged).
export function mount(root, data, onEvent) {
  const shown = SHOWN.get(root) ?? new Plane(root, onEvent);
  SHOWN.set(root, shown);
  shown.update(data, onEvent);
  return () => {
    shown.destroy();
    SHOWN.delete(root);
  };
}
