// Neurons as points: maps that share one camera, their names and groups, with a timeline where
// there are tokens.
//
// Positions, texts and the values of whole prompts are sent once and kept here by their id; colours
// and sizes come as bytes. Nothing but the user moves the camera. All text is set as text, never as
// HTML. What the user chooses is shown at once, and told to the server where there is one.

import { Beside } from "./beside.js";
import { Camera, placeOf } from "./camera.js";
import { Choices } from "./choices.js";
import { isDark } from "./colors.js";
import { Gestures, boxAt } from "./gestures.js";
import { Keys } from "./keys.js";
import { legendRows } from "./legend.js";
import { paintMaps } from "./map_picture.js";
import { mounted } from "./mounting.js";
import { countOf, idsOf, panelOf } from "./panels.js";
import { pointAt, pointsIn } from "./picking.js";
import { pixels } from "./point_program.js";
import { Points, nNeurons } from "./points.js";
import { Stage } from "./stage.js";
import { bytes, element, shows, showsNothing } from "./store.js";
import { Timeline } from "./timeline.js";
import { tipOf } from "./tip.js";

class NeuronMap {
  constructor(root) {
    this.root = root;
    this.camera = new Camera();
    this.panels = [];
    this.boxes = [];
    this.focused = null; // The group that is pointed at: { panel, group }.
    this.nDrawn = 0;
    this.choices = new Choices(this);
    this.build();
  }

  build() {
    this.host = this.root.querySelector(".neuron-map");
    this.stage = new Stage({
      redraw: () => this.draw(),
      resetCamera: () => this.resetCamera(),
      savePicture: () => this.savePicture(),
    });
    this.overlay = this.stage.overlay;
    const lasso = "Lasso: draw around neurons to select them (or Shift and drag)";
    this.lassoButton = this.stage.tool("lasso", "Lasso", lasso, () =>
      this.useLasso(!this.lassoing),
    );
    this.stage.tools.prepend(this.lassoButton);
    this.legend = element("div", "legends");
    const tokens = element("div", "timeline");
    const beside = element("aside", "beside");
    const body = element("div", "body");
    body.append(this.stage.place, beside);
    // Tokens first: what is read stands above what is looked at.
    this.host.replaceChildren(tokens, body, this.legend);
    this.points = new Points(this.stage.middle, () => this.draw());
    this.timeline = new Timeline(tokens, {
      redraw: () => this.draw(true),
      // As a trigger: the same token may be told twice, of one prompt and of the next.
      tell: (token) => this.send.setTriggerValue("token", token),
      focus: () => this.overlay.focus({ preventScroll: true }),
    });
    this.beside = new Beside(beside, this.choices);
    this.gestures = new Gestures(this);
    this.keys = new Keys(this, this.timeline);
  }

  // Data from the server.

  update(component) {
    this.send = component;
    if (!component.data) return;
    const isText = typeof component.data === "string";
    const data = JSON.parse(isText ? component.data : new TextDecoder().decode(component.data));
    this.camera.show(
      data.key || "",
      data.panels.map((panel) => panel.positions_id).join(" "),
      data.dim,
    );
    shows(this, data.panels.flatMap(idsOf));
    this.palettes = {};
    for (const name of ["palette", "palette_dark", "diverging"])
      this.palettes[name] = bytes(data[name], Uint8Array);
    this.showPanels(data.panels);
    this.points.forgetPalettes();
    this.dim = data.dim;
    this.data = data;
    this.focused = null;
    this.stage.place.style.height = `${data.height}px`;
    // Maps beside one another are about as high as wide: higher, they would stand in empty room.
    const n = data.panels.length;
    this.stage.place.style.maxHeight = n > 1 ? `max(220px, ${Math.round(110 / n)}cqw)` : "";
    this.host.style.setProperty("--height", `${data.height}px`);
    this.overlay.setAttribute("aria-label", data.label);
    this.lassoButton.hidden = this.dim > 2 || !data.has_lasso;
    if (this.lassoButton.hidden) this.useLasso(false);
    this.timeline.show([data.tokens, data.tokens_beside], data.token, data.tokens_id);
    this.isShown = false;
    this.draw();
  }

  showPanels(given) {
    const missing = [];
    const before = this.panels;
    this.panels = given.map((each, index) => panelOf(each, before[index], missing));
    before.forEach((old, index) => {
      const now = this.panels[index];
      if (!now || now.buffers !== old.buffers) this.points.release(old);
    });
    if (missing.length) this.send.setTriggerValue("missing", missing);
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
    const room = this.data && this.stage.fit();
    if (!room) return;
    const { gl } = this.points;
    if (this.isStale || room.isOther || !gl) this.paintFlat(room);
    if (gl) this.points.paint(this.panels, this.boxes, { ...this.drawing(), ratio: room.ratio });
    this.isStale = false;
    this.nDrawn += 1;
    this.tellState();
  }

  drawing() {
    return { token: this.timeline.token, zoom: this.camera.zoom, colors: this.colors };
  }

  paintFlat(room) {
    this.readTheme();
    const width = room.width / Math.max(1, this.panels.length);
    this.boxes = this.panels.map((_, i) => ({
      left: i * width,
      width,
      height: room.height,
      isFlat: this.dim < 3,
    }));
    this.names = paintMaps(this, room);
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
    state.lit = sum((panel) => countOf(panel).lit);
    state.seen = sum((panel) => countOf(panel).seen);
    state.paintedAt = String(performance.timeOrigin + performance.now());
  }

  readTheme() {
    this.colors = this.stage.colors();
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

  savePicture() {
    // Drawn and read in one go: afterwards the browser may have cleared what WebGL drew.
    Object.assign(this, { saving: true, isStale: true });
    this.paint();
    this.saving = false;
    this.draw();
    this.stage.save(this.panels.map((panel) => panel.title).join(" "));
  }

  // What gestures and keys ask; see Gestures and Keys.

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
    this.choices.pick(panel, neuron);
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
    this.choices.mark(index, found);
  }

  useLasso(on) {
    this.lassoing = on;
    this.lassoButton.setAttribute("aria-pressed", String(on));
    this.overlay.classList.toggle("lassoing", on);
    this.draw();
  }

  escape() {
    const wasOn = this.lassoing;
    if (wasOn) this.useLasso(false);
    return wasOn;
  }

  resetCamera() {
    this.camera.reset();
    this.draw();
  }

  showHint() {
    this.stage.showHint();
  }

  showTip(found, event) {
    const panel = this.panels[found.panel];
    this.stage.showTip(tipOf(panel, found.neuron, this.timeline.token), event);
    if (found.panel === this.data.beside && panel.membership)
      this.beside.light(panel.group, panel.membership[found.neuron]);
  }

  hideTip() {
    if (!this.stage.hideTip()) return;
    const panel = this.panels[this.data.beside];
    if (panel) this.beside.light(panel.group);
  }

  destroy() {
    this.timeline.destroy();
    cancelAnimationFrame(this.asked);
    this.keys.destroy();
    this.stage.destroy();
    for (const panel of this.panels) this.points.release(panel);
    showsNothing(this);
    this.points.destroy();
  }
}

export default function (component) {
  return mounted(component, (root) => new NeuronMap(root));
}
