// Neurons as points: maps that share one camera, their names and groups, with a timeline where
// there are tokens.
//
// Positions, texts and the values of whole prompts are sent once and kept here by their id; colours
// and sizes come as bytes. Nothing but the user moves the camera. All text is set as text, never as
// HTML. What the user chooses is shown at once, and told to the server where there is one.

import { paintAxes } from "./axes.js";
import { Beside } from "./beside.js";
import { Camera, placeOf } from "./camera.js";
import { isDark } from "./colors.js";
import { emphasisOf } from "./emphasis.js";
import { Gestures, boxAt } from "./gestures.js";
import { Keys } from "./keys.js";
import { Labels, middlesOf } from "./labels.js";
import { legendRows } from "./legend.js";
import { paintLoop, paintMarks } from "./marks.js";
import { pointAt, pointsIn } from "./picking.js";
import { paintPoints } from "./plain_points.js";
import { pixels } from "./point_program.js";
import { Points, nNeurons } from "./points.js";
import { bytes, element, keep, kept, shows, showsNothing } from "./store.js";
import { Timeline } from "./timeline.js";
import { tipOf } from "./tip.js";

const INSTANCES = new WeakMap();
const HINT_MS = 1800;

const button = (className, text, title, click) => {
  const made = element("button", className, text);
  made.title = title;
  made.setAttribute("aria-label", title);
  made.onclick = click;
  return made;
};

class NeuronMap {
  constructor(root) {
    this.root = root;
    this.camera = new Camera();
    this.panels = [];
    this.boxes = [];
    this.focused = null; // The group that is pointed at: { panel, group }.
    this.nDrawn = 0;
    this.build();
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(this.stage);
    // The page's own colours follow its theme; maps do not know of a change otherwise.
    this.stage.addEventListener("transitionend", () => this.draw());
    this.themeWatch = new MutationObserver(() => this.draw());
    this.themeWatch.observe(document.documentElement, { attributes: true });
    this.themeWatch.observe(document.body, { attributes: true });
  }

  build() {
    const host = this.root.querySelector(".neuron-map");
    host.replaceChildren();
    this.host = host;
    this.stage = element("div", "stage");
    // The frame under the points, marks and text above them.
    this.under = element("canvas", "under");
    const middle = element("canvas", "points");
    this.overlay = element("canvas", "overlay");
    this.overlay.tabIndex = 0;
    this.overlay.setAttribute("role", "application");
    this.tip = element("div", "tip");
    this.tip.hidden = true;
    this.hint = element("div", "hint");
    this.accent = element("span", "accent");
    const tools = (this.tools = element("div", "tools"));
    this.lassoButton = button("lasso", "Lasso", "Lasso: draw around neurons to select them (or Shift and drag)", () =>
      this.useLasso(!this.lassoing));
    tools.append(
      this.lassoButton,
      button("save", "PNG", "Save as PNG", () => this.savePicture()),
      button("home", "⟲", "Reset view (R, or double click)", () => this.resetCamera()),
    );
    this.stage.append(this.under, middle, this.overlay, this.tip, this.hint, this.accent, tools);
    this.legend = element("div", "legends");
    const tokens = element("div", "timeline");
    const beside = element("aside", "beside");
    const body = element("div", "body");
    body.append(this.stage, beside);
    // Tokens first: what is read stands above what is looked at.
    host.append(tokens, body, this.legend);
    this.points = new Points(middle, () => this.draw());
    this.timeline = new Timeline(tokens, {
      redraw: () => this.draw(true),
      // As a trigger: the same token may be told twice, of one prompt and of the next.
      tell: (token) => this.send.setTriggerValue("token", token),
      focus: () => this.overlay.focus({ preventScroll: true }),
    });
    this.beside = new Beside(beside, {
      pick: (panel, neuron) => this.pick(panel, neuron),
      pointAt: (panel, neuron) => this.pointAt(panel, neuron),
      isolate: (panel, neuron) => this.isolate(panel, neuron),
      choose: (panel, group) => this.choose(panel, group),
      focus: (panel, group) => this.focus(panel, group),
    });
    this.gestures = new Gestures(this);
    this.keys = new Keys(this, this.timeline);
  }

  // Data from the server.

  update(component) {
    this.send = component;
    if (!component.data) return;
    const isText = typeof component.data === "string";
    const data = JSON.parse(isText ? component.data : new TextDecoder().decode(component.data));
    const ids = data.panels.map((panel) => panel.positions_id);
    this.camera.show(data.key || "", ids.join(" "), data.dim);
    const all = data.panels.flatMap((p) => [p.positions_id, p.values_id, p.membership_id, p.texts_id]);
    shows(this, all.filter(Boolean));
    this.palettes = {};
    for (const name of ["palette", "palette_dark", "diverging"])
      this.palettes[name] = bytes(data[name], Uint8Array);
    const missing = [];
    const before = this.panels;
    this.panels = data.panels.map((given, index) => this.panelOf(given, before[index], missing));
    for (const old of before.slice(this.panels.length)) this.points.release(old);
    this.points.forgetPalettes();
    this.dim = data.dim;
    this.data = data;
    this.focused = null;
    this.stage.style.height = `${data.height}px`;
    // Maps beside one another are about as high as wide: higher, they would stand in empty room.
    const n = data.panels.length;
    this.stage.style.maxHeight = n > 1 ? `max(220px, ${Math.round(110 / n)}cqw)` : "";
    this.host.style.setProperty("--height", `${data.height}px`);
    this.overlay.setAttribute("aria-label", data.label);
    this.lassoButton.hidden = this.dim > 2 || !data.has_lasso;
    if (this.lassoButton.hidden) this.useLasso(false);
    if (missing.length) this.send.setTriggerValue("missing", missing);
    this.timeline.show([data.tokens, data.tokens_beside], data.token, data.tokens_id);
    this.isShown = false;
    this.draw();
  }

  panelOf(given, old, missing) {
    const found = (id, sent, read) => {
      if (!id) return null;
      if (sent) keep(id, read(sent));
      if (!kept(id)) missing.push(id);
      return kept(id) || null;
    };
    const positions = found(given.positions_id, given.positions, (sent) => bytes(sent, Float32Array));
    const values = given.frames
      ? found(given.values_id, given.values, (sent) => bytes(sent, Int8Array))
      : bytes(given.values, Uint8Array);
    const membership = found(given.membership_id, given.membership, (sent) => bytes(sent, Int16Array));
    const texts = found(given.texts_id, given.texts, (sent) => ({
      ...sent,
      nBytes: 2 * [...sent.labels, ...(sent.snippets || [])].reduce((sum, text) => sum + text.length, 0),
    }));
    const same = old && positions && old.positions === positions;
    if (old && !same) this.points.release(old);
    const panel = {
      ...given,
      positions: values && positions,
      values,
      membership,
      texts,
      groups: membership ? given.groups : [],
      byGroup: given.by_group,
      only: given.isolated,
      pointed: null,
      sizes: given.sizes ? bytes(given.sizes, Uint8Array) : null,
      hoverValues: (given.hover || []).map((each) => ({
        ...each,
        values: each.values ? bytes(each.values, Float32Array) : null,
      })),
      buffers: same ? old.buffers : null,
      emphasis: null,
    };
    if (panel.buffers) panel.buffers.fresh = false;
    if (panel.positions && membership) {
      const isKnown = same && old.membership === membership && old.groups.length === panel.groups.length;
      panel.middles = isKnown ? old.middles : middlesOf(positions, membership, panel.groups.length);
    }
    return panel;
  }

  // Drawing.

  // Where only the values of points are others, the frame and the marks stay as they are drawn.
  draw(onlyValues = false) {
    if (!onlyValues) this.isStale = true;
    if (this.asked) return;
    this.asked = requestAnimationFrame(() => {
      this.asked = 0;
      this.paint();
    });
  }

  paint() {
    const width = this.stage.clientWidth;
    const height = this.stage.clientHeight;
    if (!width || !height || !this.data) return;
    const ratio = Math.min(window.devicePixelRatio || 1, 2);
    for (const canvas of [this.under, this.points.canvas, this.overlay])
      if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
        canvas.width = Math.round(width * ratio);
        canvas.height = Math.round(height * ratio);
        this.isStale = true;
      }
    const { gl } = this.points;
    if (this.isStale || !gl) this.paintFlat(width, height, ratio);
    if (gl) this.points.paint(this.panels, this.boxes, { ...this.drawing(), ratio });
    this.isStale = false;
    this.nDrawn += 1;
    this.tellState();
  }

  drawing() {
    return { token: this.timeline.token, zoom: this.camera.zoom, colors: this.colors };
  }

  // What is on the screen, for tests and benchmarks.
  tellState() {
    const state = this.host.dataset;
    const sum = (count) => String(this.panels.reduce((total, panel) => total + count(panel), 0));
    state.drawn = String(this.nDrawn);
    state.shown = this.panels.map((panel) => `${panel.positions_id}/${panel.values_id}`).join(" ");
    state.points = sum(nNeurons);
    state.camera = JSON.stringify(this.camera.state());
    state.token = String(this.timeline.token);
    state.renderer = this.points.gl ? "webgl2" : "canvas";
    state.names = JSON.stringify(this.names || []);
    state.lit = sum((panel) => this.count(panel).lit);
    state.seen = sum((panel) => this.count(panel).seen);
    state.paintedAt = String(performance.timeOrigin + performance.now());
  }

  count(panel) {
    if (panel.counted !== panel.emphasis) {
      let [lit, seen] = [0, 0];
      for (const each of panel.emphasis || []) {
        if (each) seen += 1;
        if (each >= 254) lit += 1;
      }
      Object.assign(panel, { counted: panel.emphasis, lit, seen });
    }
    return panel;
  }

  // All that WebGL does not draw: the frame below the points, marks and text above them.
  paintFlat(width, height, ratio) {
    this.readTheme();
    const share = width / Math.max(1, this.panels.length);
    this.boxes = this.panels.map((_, i) => ({ left: i * share, width: share, height, isFlat: this.dim < 3 }));
    const [below, above] = [this.under, this.overlay].map((canvas) => {
      const pen = canvas.getContext("2d");
      pen.setTransform(ratio, 0, 0, ratio, 0, 0);
      pen.clearRect(0, 0, width, height);
      return pen;
    });
    this.names = [];
    this.panels.forEach((panel, i) => this.paintPanel(panel, i, below, above));
    paintLoop(above, this.loop, this.colors);
  }

  // Of elements, not of the page's variables: those may hold what a canvas can't read.
  readTheme() {
    const stage = getComputedStyle(this.stage);
    this.colors = {
      text: stage.color,
      page: stage.backgroundColor,
      mark: getComputedStyle(this.accent).color,
      font: stage.fontFamily,
    };
    const dark = isDark(this.colors.page);
    if (this.isShown && this.wasDark === dark) return;
    this.wasDark = dark;
    this.isShown = true;
    const { palette, palette_dark, diverging } = this.palettes;
    const usual = dark ? palette_dark : palette;
    for (const panel of this.panels) {
      const own = dark ? panel.colors_dark || panel.colors : panel.colors;
      panel.palette = panel.frames ? diverging : own ? bytes(own, Uint8Array) : usual;
    }
    this.legend.replaceChildren(
      ...legendRows(this.data, this.panels, (signed) => (signed ? diverging : usual)),
    );
    this.showBeside();
  }

  showBeside() {
    const index = this.data.beside;
    const panel = index === null || index === undefined ? null : this.panels[index];
    this.beside.show(panel, index, (group, isChosen) => this.colorOf(panel, group, isChosen));
  }

  colorOf(panel, group, isChosen) {
    if (isChosen && (group.shared || !panel.byGroup)) return this.colors.mark;
    // Also where points are coloured by something else: it links the list to the names on the map.
    const own = this.wasDark ? this.palettes.palette_dark : this.palettes.palette;
    const [r, g, b] = own.subarray(3 * group.color, 3 * group.color + 3);
    return `rgb(${r},${g},${b})`;
  }

  paintPanel(panel, i, below, above) {
    const box = this.boxes[i];
    const { axes } = this.data;
    box.matrix = this.camera.matrix(panel, box, axes !== null);
    const focus = this.focused && this.focused.panel === i ? this.focused.group : null;
    if (!panel.emphasis || panel.focus !== focus) {
      panel.emphasis = emphasisOf(panel, nNeurons(panel), focus);
      panel.focus = focus;
    }
    for (const pen of [below, above]) {
      pen.save();
      pen.beginPath();
      pen.rect(box.left, 0, box.width, box.height);
      pen.clip();
    }
    if (axes !== null) paintAxes(below, panel, box, axes, this.colors.text);
    if (i) this.paintSeam(below, box);
    if (!this.points.gl && panel.positions) paintPoints(above, panel, box, this.drawing());
    this.paintTexts(above, panel, box, focus === null ? panel.group : focus);
    below.restore();
    above.restore();
  }

  paintTexts(pen, panel, box, chosen) {
    const labels = new Labels(pen, this.colors);
    pen.globalAlpha = 1;
    pen.fillStyle = this.colors.text;
    pen.font = `600 13px ${this.colors.font}`;
    // Alone, a map is told by the page.
    const title = this.panels.length > 1 || this.timeline.nTokens || this.saving ? panel.title : "";
    // The last map has the buttons above it: a title that would lie under them stands below them.
    const isLast = box.left + box.width > this.stage.clientWidth - 1;
    const isUnder = isLast && !this.saving && pen.measureText(title).width + 30 + this.tools.offsetWidth > box.width;
    pen.fillText(title, box.left + 12, isUnder ? 58 : 22, box.width - 20);
    labels.take({ x: box.left, y: 0, width: pen.measureText(title).width + 20, height: isUnder ? 66 : 28 });
    labels.take({ x: box.left + box.width - 170, y: 0, width: 170, height: 40 });
    if (!panel.positions) {
      pen.font = `13px ${this.colors.font}`;
      pen.fillText("waiting for positions …", box.left + 12, 42);
      return;
    }
    const at = paintMarks(pen, panel, box, this.colors);
    const { zoom } = this.camera;
    if (at) {
      const name = `${panel.name} N${panel.selected}`;
      const label = panel.texts && panel.texts.labels[panel.selected];
      labels.put(box, label ? `${name}  ${label}` : name, at, {
        font: `600 12px ${this.colors.font}`, rim: this.colors.mark,
        offsets: [[0, -26], [0, 26], [70, 0], [-70, 0]],
      });
      labels.neurons(panel, box, { zoom, among: panel.near.map(([i]) => i) });
    }
    if (!panel.only)
      labels.groups(panel, box, { chosen, zoom, colorOf: (group, isChosen) => this.colorOf(panel, group, isChosen) });
    labels.neurons(panel, box, { zoom });
    this.names.push(...labels.texts);
  }

  paintSeam(pen, box) {
    pen.strokeStyle = this.colors.text;
    pen.globalAlpha = 0.12;
    pen.beginPath();
    pen.moveTo(box.left + 0.5, 0);
    pen.lineTo(box.left + 0.5, box.height);
    pen.stroke();
    pen.globalAlpha = 1;
  }

  savePicture() {
    // Drawn and read in one go: afterwards the browser may have cleared what WebGL drew.
    Object.assign(this, { saving: true, isStale: true });
    this.paint();
    this.saving = false;
    this.draw();
    const picture = element("canvas");
    picture.width = this.overlay.width;
    picture.height = this.overlay.height;
    const pen = picture.getContext("2d");
    pen.fillStyle = this.colors.page;
    pen.fillRect(0, 0, picture.width, picture.height);
    for (const canvas of [this.under, this.points.canvas, this.overlay]) pen.drawImage(canvas, 0, 0);
    const link = element("a");
    link.download = `${this.panels.map((panel) => panel.title).join(" ")}.png`.replace(/[^\w.]+/g, "-");
    link.href = picture.toDataURL("image/png");
    link.click();
  }

  // What the user chooses: shown at once, then told.

  redo(panel) {
    panel.emphasis = null;
    this.draw();
  }

  pick(index, neuron) {
    const panel = this.panels[index];
    if (panel.only && neuron !== panel.selected) panel.only = false;
    for (const each of this.panels) {
      if (each.selected === null || each.selected === undefined) continue;
      Object.assign(each, { selected: null, near: [], only: false });
      this.redo(each);
    }
    panel.selected = neuron;
    this.redo(panel);
    this.showBeside();
    this.send.setTriggerValue("picked", { panel: index, neuron });
  }

  choose(index, group) {
    const panel = this.panels[index];
    panel.group = panel.group === group ? null : group;
    this.focused = null;
    this.redo(panel);
    this.beside.light(panel.group);
    const pole = panel.group === null ? null : panel.groups[group].number;
    this.send.setTriggerValue("chosen", { panel: index, pole });
  }

  // A group that is pointed at, in the list or on the map.
  focus(index, group) {
    const before = this.focused;
    this.focused = group === null ? null : { panel: index, group };
    if ((before && before.group) === group) return;
    this.draw();
  }

  pointAt(index, neuron) {
    this.panels[index].pointed = neuron;
    this.draw();
  }

  isolate(index, neuron) {
    this.panels[index].only = neuron !== null;
    this.redo(this.panels[index]);
    this.showBeside();
    this.send.setTriggerValue("isolated", { panel: index, neuron });
  }

  mark(index, neurons) {
    this.panels[index].marked = neurons;
    this.redo(this.panels[index]);
    this.send.setTriggerValue("marked", { panel: index, neurons });
  }

  // What gestures ask; see Gestures.

  placesOf(index) {
    const panel = this.panels[index];
    return (i) => panel.emphasis[i] && placeOf(panel, this.boxes[index], i);
  }

  find(x, y) {
    const index = this.boxes.indexOf(boxAt(this.boxes, x));
    const panel = this.panels[index];
    // What came just now is not drawn yet.
    if (!panel || !panel.positions || !panel.emphasis) return null;
    const n = nNeurons(panel);
    const largest = pixels(n, this.boxes[index], this.camera.zoom);
    const neuron = pointAt(n, this.placesOf(index), largest, x, y);
    return neuron === null ? null : { panel: index, neuron };
  }

  click({ panel, neuron }) {
    this.pick(panel, neuron);
  }

  canLasso(event) {
    return this.dim < 3 && event.button === 0 && (this.lassoing || event.shiftKey);
  }

  drawLoop(loop) {
    this.loop = loop;
    if (loop) this.draw();
  }

  catchLoop(loop) {
    const index = this.boxes.indexOf(boxAt(this.boxes, loop[0][0]));
    const panel = this.panels[index];
    if (!panel || !panel.positions || !panel.emphasis) return;
    const found = pointsIn(loop, nNeurons(panel), this.placesOf(index));
    this.useLasso(false);
    this.mark(index, found);
  }

  escape() {
    const wasOn = this.lassoing;
    if (wasOn) this.useLasso(false);
    return wasOn;
  }

  useLasso(on) {
    this.lassoing = on;
    this.lassoButton.setAttribute("aria-pressed", String(on));
    this.overlay.classList.toggle("lassoing", on);
    this.draw();
  }

  resetCamera() {
    this.camera.reset();
    this.draw();
  }

  showHint() {
    const held = /Mac|iPhone|iPad/.test(navigator.platform) ? "⌘" : "Ctrl";
    this.hint.textContent = `${held} and wheel, or a click into the map first, to zoom`;
    this.hint.classList.add("seen");
    clearTimeout(this.hinting);
    this.hinting = setTimeout(() => this.hint.classList.remove("seen"), HINT_MS);
  }

  showTip(found, event) {
    const panel = this.panels[found.panel];
    this.tip.replaceChildren(...tipOf(panel, found.neuron, this.timeline.token));
    this.tip.hidden = false;
    const area = this.stage.getBoundingClientRect();
    const x = event.clientX - area.left;
    this.tip.style.left = `${Math.min(x + 14, area.width - this.tip.offsetWidth - 4)}px`;
    this.tip.style.top = `${Math.max(4, event.clientY - area.top - this.tip.offsetHeight - 8)}px`;
    this.overlay.style.cursor = "pointer";
    if (found.panel === this.data.beside && panel.membership)
      this.beside.light(panel.group, panel.membership[found.neuron]);
  }

  hideTip() {
    if (this.tip.hidden) return;
    this.tip.hidden = true;
    this.overlay.style.cursor = "";
    const panel = this.panels[this.data.beside];
    if (panel) this.beside.light(panel.group);
  }

  destroy() {
    this.timeline.destroy();
    cancelAnimationFrame(this.asked);
    clearTimeout(this.hinting);
    this.observer.disconnect();
    this.keys.destroy();
    this.themeWatch.disconnect();
    for (const panel of this.panels) this.points.release(panel);
    showsNothing(this);
    this.points.destroy();
  }
}

export default function (component) {
  const root = component.parentElement;
  let map = INSTANCES.get(root);
  if (!map) {
    map = new NeuronMap(root);
    INSTANCES.set(root, map);
  }
  clearTimeout(map.leaving);
  map.update(component);
  return () => {
    // Called before every update too: only what is not drawn again has gone.
    map.leaving = setTimeout(() => {
      map.destroy();
      INSTANCES.delete(root);
    }, 1000);
  };
}
