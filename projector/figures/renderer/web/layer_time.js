// Hidden states as particles that move from layer to layer, with their tokens beside them.
//
// It plays from the start and has the keys without a click. Arrays travel once, and are kept while
// the data's id is the same. All text is set as text, never as HTML. What the user chooses is shown
// at once, and told to the server where there is one: "token" with { prompt, token }, "layer" with
// { frame, layer }, and "missing" with the id of data that came without its arrays.

import { isDark } from "./colors.js";
import { densityPalette } from "./density.js";
import { Gestures } from "./gestures.js";
import { Keys } from "./keys.js";
import { LayerBar } from "./layer_bar.js";
import { coloringOf, coloringsOf, colorOf, paletteOf, said } from "./layer_colors.js";
import { scaleRow } from "./layer_legend.js";
import { LayerPicture } from "./layer_picture.js";
import { LayerSide } from "./layer_side.js";
import { LayerSwitches } from "./layer_switches.js";
import { tipLines } from "./layer_tip.js";
import { mounted } from "./mounting.js";
import { LensWords, Particles } from "./particles.js";
import { Player } from "./player.js";
import { PromptTokens } from "./prompt_tokens.js";
import { element } from "./store.js";

const FEW = 400; // Particles that may have lines and trails from the start.
const LEFT_PALE = 90; // Of 255: what is not in hand.

class LayerTime {
  constructor(root) {
    this.root = root;
    this.held = null; // { particle, prompt, token } or null.
    this.pointed = -1;
    this.nPainted = 0;
    this.build();
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(this.picture.stage.place);
    this.rethemed = () => this.retheme();
    this.picture.stage.place.addEventListener("transitionend", this.rethemed);
    this.themeWatch = new MutationObserver(this.rethemed);
    for (const place of [document.documentElement, document.body])
      this.themeWatch.observe(place, { attributes: true });
    this.scheme = matchMedia("(prefers-color-scheme: dark)");
    this.scheme.addEventListener("change", this.rethemed);
  }

  build() {
    this.host = this.root.querySelector(".layer-time");
    this.picture = new LayerPicture({
      redraw: () => this.draw(),
      resetCamera: () => this.resetCamera(),
      savePicture: () => this.savePicture(),
    });
    const [main, bar, switches, side, prompts, layout] = [
      "main",
      "bar-row",
      "switches",
      "side",
      "prompts",
      "layout",
    ].map((name) => element(name === "side" ? "aside" : "div", name));
    this.legends = element("div", "legends");
    this.found = element("div", "found");
    main.append(this.picture.stage.place, bar, switches, this.legends);
    side.append(prompts);
    layout.append(main, side);
    this.host.replaceChildren(layout, this.found);
    this.tokens = new PromptTokens(prompts, {
      pick: (prompt, token) => this.hold(this.particles.of(prompt, token), prompt, token),
      point: (prompt, token) =>
        this.pointTo(token === null ? -1 : this.particles.of(prompt, token)),
    });
    this.side = new LayerSide(side, { goTo: (frame) => this.player.goTo(frame) });
    this.bar = new LayerBar(bar, {
      toggle: () => this.player.play(!this.player.playing),
      scrub: (at) => this.player.scrub(at),
      goTo: (frame) => this.player.goTo(frame),
      setSpeed: (seconds) => Object.assign(this.player, { pace: seconds }),
    });
    this.switches = new LayerSwitches(switches, {
      change: (name, value) => this.change(name, value),
    });
    this.isScrolled = true;
    this.overlay = this.picture.stage.overlay;
    this.camera = this.picture.camera;
    this.player = new Player({
      nFrames: 1,
      redraw: () => this.draw(),
      tell: (frame) => this.tellLayer(frame),
    });
    this.gestures = new Gestures(this);
    this.keys = new Keys(this, this.player);
  }

  // Data from the server, or of the page.

  update(component) {
    this.send = component;
    if (!component.data) return;
    const isText = typeof component.data === "string";
    const data = JSON.parse(isText ? component.data : new TextDecoder().decode(component.data));
    if (this.data && data.id === this.data.id) this.serve(data.selected || {});
    else if (data.n_points === undefined) this.send.setTriggerValue("missing", data.id);
    else this.show(data);
  }

  show(data) {
    this.data = data;
    const particles = (this.particles = new Particles(data));
    this.lens = new LensWords(data.predictions, data.prompts, data.n_frames);
    Object.assign(this, { held: null, pointed: -1, served: {} });
    const isFew = particles.n <= FEW;
    this.picture.show(data, particles);
    this.on = {
      trails: isFew,
      lines: isFew && data.k > 0,
      partners: true,
      density: false,
      sums: false,
    };
    this.on.follow = this.picture.viewOf(this.on).following.isNeeded;
    const colorings = coloringsOf(data);
    this.coloringId = colorings[0].id;
    // On a page of its own it takes what the window has, below the title and above the rest.
    const height = data.height ? `${data.height}px` : "clamp(360px, 100vh - 330px, 760px)";
    this.host.style.setProperty("--stage", height);
    this.overlay.setAttribute("aria-label", `${data.title}. ${data.lead}`);
    this.switches.show({
      colorings,
      coloring: this.coloringId,
      on: this.on,
      has: {
        trails: data.n_frames > 1,
        lines: data.k > 0,
        partners: particles.pairs.length > 0,
        follow: data.n_frames > 1,
        density: data.density !== null,
        sums: Boolean(data.parts_view),
      },
    });
    this.tokens.show(data.prompts);
    this.side.show(data, particles, this.lens);
    this.bar.show(data.frames, data.layers);
    this.found.replaceChildren(
      ...data.facts.concat(data.notes).map((text) => element("p", "", text)),
    );
    if (data.n_sums) this.picture.moving.sizes(particles.sizes());
    this.picture.useCamera(this.isFlat);
    this.player.play(false);
    this.player.show(data.n_frames);
    this.player.goTo(0, false);
    this.retheme();
    this.serve(data.selected || {}, true);
    if (!this.held) this.offer();
    // What was pressed to see this keeps no keys, unless keys pressed it.
    const pressed = document.activeElement;
    if (pressed && pressed.matches("button:not(:focus-visible)")) pressed.blur();
    const { rests = false, layer = null } = data.selected || {};
    if (rests) this.player.goTo(Math.max(0, data.layers.indexOf(layer)), false);
    else if (!matchMedia("(prefers-reduced-motion: reduce)").matches) this.player.play();
  }

  // What the server chose; it may say again what it was told, when the user is further on.
  serve({ prompt = 0, token = null, layer }, isFirst = false) {
    const key = `${prompt} ${token}`;
    const particle = token === null ? -1 : this.particles.of(prompt, token);
    const isOther = !this.held || this.held.particle !== particle;
    if (particle >= 0 && this.served.key !== key && isOther)
      this.hold(particle, prompt, token, false);
    const frame = layer === undefined ? -1 : this.data.layers.indexOf(layer);
    const isNew = frame >= 0 && this.served.frame !== frame && frame !== this.frame;
    if (isNew && !isFirst) {
      this.player.goTo(frame, false);
      this.told = frame;
    }
    this.served = { key, frame };
  }

  // At first the last token, which says what comes next, without paling the others.
  offer() {
    const token = this.data.prompts[0].tokens.length - 1;
    const particle = this.particles.of(0, token);
    if (particle < 0) return;
    this.hold(particle, 0, token, false);
    this.isOffered = true;
    this.emphasize();
  }

  // What is shown.

  get frame() {
    return this.player.current;
  }

  get isFlat() {
    return this.data.dim < 3 || this.on.density;
  }

  change(name, value) {
    if (name === "coloring") {
      this.coloringId = value;
      this.recolor();
    } else this.on[name] = value;
    if (name === "density") {
      this.picture.useCamera(this.isFlat);
      // A density alone at first; what was on comes back after it.
      if (value) this.before = { trails: this.on.trails, lines: this.on.lines };
      for (const [other, was] of Object.entries(this.before)) {
        this.on[other] = !value && was;
        this.switches.set(other, this.on[other]);
      }
      // Its window is its own.
      for (const other of ["follow", "sums"]) this.switches.rest(other, value);
      this.emphasize();
    }
    this.showLegends();
    this.draw();
  }

  retheme() {
    if (!this.data) return;
    this.dark = isDark(this.picture.readTheme().page);
    this.recolor();
    this.draw();
  }

  recolor() {
    this.coloring = coloringOf(this.coloringId, this.particles, this.data);
    this.palette = paletteOf(this.coloring.palette, this.dark);
    this.picture.moving.colors(this.coloring.bytes, this.palette);
    this.emphasize();
    this.besideShown = null;
    this.showLegends();
  }

  showLegends() {
    const rows = [scaleRow(this.coloring.legend, this.palette)];
    const lines = this.on.lines && this.picture.moving.lineScale(this.dark);
    const { metric, density, prompts } = this.data;
    if (this.on.density)
      prompts.forEach(({ name }, k) => {
        const ticks = [
          [0, "0"],
          [1, said(density.highest)],
        ];
        rows.push(
          scaleRow(
            { label: `density${name && ` of ${name}`}`, ticks, title: density.words },
            densityPalette(this.picture.colors.page, k),
          ),
        );
      });
    if (lines) {
      const label =
        metric === "cosine" ? "lines: cosine distance" : "lines: distance in full space";
      const [low, high] = [
        said(lines.low > 1e-6 * lines.high ? lines.low : 0),
        `≥ ${said(lines.high)}`,
      ];
      const ticks = lines.is_log
        ? [
            [0, `≤ ${low}`],
            [0.5, said(Math.sqrt(lines.low * lines.high))],
            [1, high],
          ]
        : [
            [0, low],
            [1, high],
          ];
      rows.push(scaleRow({ label, ticks }, lines.palette));
    }
    const { note } = this.coloring.legend;
    if (note) rows.push(element("p", "quiet", note));
    if (this.on.density) rows.push(element("p", "quiet", density.words));
    else if (this.data.parts_view && !this.on.sums)
      rows.push(element("p", "quiet", this.data.parts_view.words));
    this.legends.replaceChildren(...rows);
  }

  emphasize() {
    const { particles, held } = this;
    const isPaled = held && !this.isOffered;
    const found = new Uint8Array(particles.n).fill(isPaled ? LEFT_PALE : 255);
    // Many would hide the density.
    if (this.on.density && particles.n > FEW) found.fill(0, 0, particles.n - particles.nSums);
    if (isPaled) {
      const own = held.token < 0 ? [held.particle] : particles.allOf(held.prompt, held.token);
      const partner = particles.partners.get(held.particle);
      for (const i of partner === undefined ? own : [...own, partner]) found[i] = 255;
    }
    this.picture.moving.emphasis(found);
  }

  // What the user chooses: shown at once, then told.

  // Takes a particle in hand, or lets go of the one that is. Of an autoencoder's, a token may have
  // none: then it is −1.
  hold(particle, prompt, token, isTold = true) {
    const before = this.isOffered ? null : this.held;
    const asked = { particle, prompt, token };
    const isSame = JSON.stringify(before) === JSON.stringify(asked);
    this.isOffered = false;
    this.held = isSame || (particle < 0 && token < 0) ? null : asked;
    const { particles } = this;
    const partner = this.held ? particles.partners.get(particle) : undefined;
    const partners =
      partner === undefined
        ? []
        : [{ prompt: particles.prompt[partner], token: particles.token[partner] }];
    this.tokens.light(this.held, partners);
    this.emphasize();
    this.draw();
    if (isTold && this.held && token >= 0) this.send.setTriggerValue("token", { prompt, token });
  }

  pointTo(particle) {
    if (this.pointed === particle) return;
    this.pointed = particle;
    this.draw();
  }

  tellLayer(frame) {
    if (this.told === frame) return;
    this.told = frame;
    this.send.setTriggerValue("layer", { frame, layer: this.data.layers[frame] });
  }

  resetCamera() {
    this.camera.reset();
    this.draw();
  }

  // What the gestures ask of a view; a particle is told as { particle }.

  get boxes() {
    return [this.picture.box];
  }

  find(x, y) {
    const particle = this.data ? this.picture.find(x, y) : null;
    return particle === null ? null : { particle };
  }

  showTip({ particle }, event) {
    this.pointTo(particle);
    this.picture.stage.showTip(tipLines(this, particle), event);
  }

  hideTip() {
    this.pointTo(-1);
    this.picture.stage.hideTip();
  }

  showHint() {
    this.picture.stage.showHint();
  }

  click({ particle }) {
    this.hold(particle, this.particles.prompt[particle], this.particles.token[particle]);
  }

  // Escape lets go of what is in hand.
  escape() {
    const { held } = this;
    if (held) this.hold(held.particle, held.prompt, held.token);
    return held !== null;
  }

  // Drawing.

  draw() {
    if (this.asked) return;
    this.asked = requestAnimationFrame(() => {
      this.asked = 0;
      this.paint();
    });
  }

  paint() {
    if (!this.data) return;
    const { frame, on, held, pointed } = this;
    if (!this.picture.paint({ at: this.player.at, frame, on, held, pointed })) return;
    this.paintBeside();
    this.nPainted += 1;
    this.tellState();
  }

  // Tokens, panel and bar; of these only the slider moves between two frames.
  paintBeside() {
    const { frame, player, particles } = this;
    this.bar.update({ at: player.at, frame, playing: player.playing });
    const note = this.picture.notComparable(this.on);
    const shown = `${frame} ${JSON.stringify(this.held)} ${this.coloringId} ${this.dark} ${note === null}`;
    if (this.besideShown === shown) return;
    this.besideShown = shown;
    this.side.update(frame, this.held, note !== null);
    this.tokens.color((prompt, token) => {
      const i = particles.of(prompt, token);
      return i < 0 || this.coloring.isOfParts
        ? null
        : colorOf(this.coloring, this.palette, particles.n, frame, i);
    });
  }

  // What is on the screen, for tests and benchmarks.
  tellState() {
    if (this.loadedMs === undefined) this.loadedMs = performance.now();
    Object.assign(this.host.dataset, {
      frame: String(this.frame),
      at: this.player.at.toFixed(3),
      playing: String(this.player.playing),
      painted: String(this.nPainted),
      loaded_ms: this.loadedMs.toFixed(0),
      fps: String(this.player.fps),
      held: this.held ? String(this.held.particle) : "",
      camera: JSON.stringify(this.camera.state()),
      names: JSON.stringify(this.picture.names),
      leaving: JSON.stringify(this.picture.leaving),
      view: JSON.stringify(this.picture.seen),
      note: (this.picture.notComparable(this.on) || []).join(" "),
      renderer: this.picture.moving.gl ? "webgl2" : "canvas",
    });
  }

  savePicture() {
    // Drawn and read in one go: afterwards the browser may have cleared what WebGL drew.
    this.paint();
    this.picture.save(`${this.data.title} ${this.data.frames[this.frame]}`);
  }

  destroy() {
    this.player.destroy();
    cancelAnimationFrame(this.asked);
    this.observer.disconnect();
    this.themeWatch.disconnect();
    this.scheme.removeEventListener("change", this.rethemed);
    this.keys.destroy();
    this.bar.destroy();
    this.gestures.destroy();
    this.picture.destroy();
  }
}

export default function (component) {
  return mounted(component, (root) => new LayerTime(root));
}
