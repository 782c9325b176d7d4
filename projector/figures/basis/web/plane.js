// A plane before and after a linear map, animated between the two: grid, basis vectors, circle and
// points. A 2 × 2 matrix can be dragged, and a ReLU applied behind it. All text is set as text.

import { drawCaptions } from "./captions.js";
import { Controls } from "./controls.js";
import { remarksOf, showFacts } from "./facts.js";
import { drawBasis, drawGrid, tipsNow } from "./grid.js";
import { press } from "./keys.js";
import { Pen } from "./pen.js";
import { Player } from "./playing.js";
import { Pointing } from "./pointing.js";
import { drawPoints } from "./points.js";
import { Scene } from "./scene.js";
import { drawSum } from "./sum.js";
import { make } from "./text.js";
import { Toy } from "./toy.js";
import { viewOf } from "./view.js";

class Plane {
  constructor(root, send) {
    this.root = root;
    this.send = send;
    this.scene = new Scene();
    this.player = new Player(this.scene, () => this.draw());
    root.classList.add("plane");
    this.observer = new ResizeObserver(() => this.draw());
    // Another theme changes the colour of text, which takes a moment in the style sheet.
    root.addEventListener("transitionend", (this.restyle = () => this.draw()));
  }

  update(data, send) {
    const { scene } = this;
    this.send = send;
    const text = JSON.stringify(data);
    if (text === this.text) return;
    const isSame = scene.data && scene.data.title === data.title && scene.data.kind === data.kind;
    this.text = text;
    // A matrix that was touched is the user's: the server sends what it was some moments before.
    if (isSame && data.kind === "toy" && this.isTouched) {
      scene.data = data;
      return;
    }
    scene.data = data;
    scene.matrix = data.matrix.map((row) => [...row]);
    if (!isSame) {
      this.player.stop();
      this.isTouched = false;
      scene.t = ["attention", "skip"].includes(data.kind) ? 1 : 0;
      scene.hasReLU = data.kind === "neurons" || Boolean(data.relu);
    }
    this.build();
    this.follow();
  }

  build() {
    const { data } = this.scene;
    const held = this.root.getRootNode().activeElement?.dataset?.control;
    this.root.replaceChildren();
    this.canvas = make("canvas");
    // Keys are the slider's; they work here too after a click.
    this.canvas.tabIndex = -1;
    this.canvas.dataset.control = "canvas";
    this.canvas.setAttribute("role", "img");
    this.pen = new Pen(this.canvas);
    this.stage = make("div", "stage");
    this.stage.append(this.canvas);
    this.pointing = new Pointing(this);
    this.controls = new Controls(this);
    this.side = make("div", "side");
    const left = make("div", "left");
    left.append(this.stage, this.controls.element);
    this.root.append(left, this.side);
    this.toy = data.kind === "toy" ? new Toy(this) : null;
    this.facts = make("dl", "facts");
    this.side.append(this.facts, ...remarksOf(data));
    this.root.onkeydown = (event) => press(this, event);
    this.observer.disconnect();
    this.observer.observe(this.stage);
    if (held) this.root.querySelector(`[data-control="${held}"]`)?.focus({ preventScroll: true });
  }

  // What of the picture follows: fields, facts, and the canvas.
  follow() {
    this.toy?.showMatrix();
    showFacts(this.facts, this.scene);
    this.draw();
  }

  changed() {
    this.isTouched = true;
    this.follow();
    this.toy?.say();
    this.send?.("matrix", this.scene.matrix);
  }

  draw() {
    const size = this.stage?.clientWidth;
    if (!size) return;
    const { pen, scene } = this;
    this.view = this.held?.resized(size) ?? viewOf(scene, size);
    pen.begin(this.view, getComputedStyle(this.root));
    this.root.style.setProperty("--plane-circle", pen.colours.circle);
    this.root.style.setProperty("--plane-mark", pen.colours.mark);
    if (scene.hasReLU) pen.shadeOrthant();
    drawGrid(pen, scene);
    if (scene.data.kind === "skip") drawSum(pen, scene);
    else this.shown = drawPoints(pen, scene);
    if (scene.hasMatrix) drawBasis(pen, scene, this.toy ? 25 : 15);
    const { first, second } = pen.colours;
    const tips = this.toy && tipsNow(scene);
    this.toy?.handles.forEach((handle, k) => handle.show(tips[k], this, [first, second][k]));
    drawCaptions(pen, scene);
    this.showState();
  }

  showState() {
    const { player, root, scene } = this;
    const words = `${Math.round(100 * Math.min(1, scene.t))} % of the way`;
    this.controls.show(scene, player.isPlaying, words);
    this.canvas.setAttribute(
      "aria-label",
      `${scene.data.title}: a plane, ${words} from before to after`,
    );
    root.dataset.t = scene.t.toFixed(3);
    root.dataset.playing = String(player.isPlaying);
    root.dataset.points = String((scene.data.points_before ?? []).length);
    root.dataset.chosen = String(scene.mixture[0]);
    root.dataset.matrix = JSON.stringify(scene.matrix);
    root.dataset.paintedAt = String(performance.timeOrigin + performance.now());
  }

  destroy() {
    this.player.stop();
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
