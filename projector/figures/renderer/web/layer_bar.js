// The bar below the picture: play, a slider over the frames with their names, and the speed.

import { PAUSE, PLAY, sign } from "./signs.js";
import { element } from "./store.js";

// Seconds from a layer to the next.
const SPEEDS = [
  [2.8, "¼ speed"],
  [1.4, "½ speed"],
  [0.7, "1× speed"],
  [0.35, "2× speed"],
  [0.14, "5× speed"],
];
const THUMB = 16; // Pixels.
const LEAST_APART = 34;

export class LayerBar {
  // `toggle()` plays or pauses, `scrub(at)` shows a place, `goTo(frame)` rests on a frame, and
  // `setSpeed(seconds)` tells how long a layer takes.
  constructor(place, { toggle, scrub, goTo, setSpeed }) {
    Object.assign(this, { place, scrub, goTo });
    this.button = element("button", "play");
    this.button.title = "Play or pause (Space)";
    this.button.setAttribute("aria-label", this.button.title);
    this.button.onmousedown = (event) => event.preventDefault();
    this.button.onclick = toggle;
    this.now = element("span", "frame-name");
    this.slider = element("input", "slider");
    Object.assign(this.slider, { type: "range", min: "0", step: "any" });
    this.slider.setAttribute("aria-label", "Frame");
    this.slider.oninput = () => this.scrub(Number(this.slider.value));
    this.slider.onchange = () => this.goTo(Math.round(Number(this.slider.value)));
    this.slider.onkeydown = (event) => this.key(event);
    this.ticks = element("div", "ticks");
    const track = element("div", "track");
    // What is seen of the slider moves as a whole: a slider's own parts would be drawn anew, with all
    // around them, in each frame of the screen.
    this.filled = element("span", "filled");
    this.carrier = element("span", "carrier");
    this.carrier.append(element("span", "knob"));
    const rail = element("div", "rail");
    rail.append(element("span", "whole"), this.filled, this.carrier, this.slider);
    track.append(rail, this.ticks);
    this.speed = element("select", "speed");
    this.speed.setAttribute("aria-label", "Speed");
    for (const [seconds, name] of SPEEDS) {
      const option = element("option", "", name);
      option.value = String(seconds);
      option.selected = seconds === 0.7;
      this.speed.append(option);
    }
    this.speed.onchange = () => {
      setSpeed(Number(this.speed.value));
      // The keys are the player's again.
      this.speed.blur();
    };
    place.append(this.button, this.now, track, this.speed);
    this.watch = new ResizeObserver(() => this.thin());
    this.watch.observe(this.ticks);
  }

  show(frames, layers) {
    this.frames = frames;
    this.playing = undefined;
    this.last = frames.length - 1;
    this.slider.max = String(Math.max(1, this.last));
    this.slider.disabled = this.button.disabled = this.last < 1;
    this.marks = frames.map((name, f) => {
      const mark = element("span", "tick", layers[f] === null ? "emb." : String(layers[f]));
      mark.title = name;
      mark.style.left = `calc(${THUMB / 2}px + (100% - ${THUMB}px) * ${f / Math.max(1, this.last)})`;
      mark.onmousedown = (event) => event.preventDefault();
      mark.onclick = () => this.goTo(f);
      return mark;
    });
    this.ticks.replaceChildren(...this.marks);
    this.thin();
  }

  // A slider without steps would move by a hundredth of itself.
  key(event) {
    const by = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
    if (!by) return;
    this.goTo(Math.max(0, Math.min(this.last, this.frame + by)));
    event.preventDefault();
    event.stopPropagation();
  }

  // As many names as there is room for: the first, the last, and every n-th from the last.
  thin() {
    if (!this.marks || !this.ticks.clientWidth) return;
    const apart = (this.ticks.clientWidth - THUMB) / Math.max(1, this.last);
    const every = Math.max(1, Math.ceil((LEAST_APART - 6) / apart));
    this.marks.forEach((mark, f) => {
      const isFirst = f === 0 || f === this.last;
      const isNear = f * apart < LEAST_APART && f > 0 && apart < LEAST_APART;
      // Not even a dot below the first one's name.
      mark.classList.toggle("covered", f > 0 && f * apart < LEAST_APART / 1.6);
      mark.classList.toggle("bare", !isFirst && (isNear || (this.last - f) % every > 0));
    });
  }

  update({ at, frame, playing }) {
    const share = at / Math.max(1, this.last);
    this.filled.style.transform = `scaleX(${share})`;
    this.carrier.style.transform = `translateX(${100 * share}%)`;
    if (!playing || this.frame !== frame) this.slider.value = String(at);
    if (this.frame !== frame || this.playing === undefined) {
      this.frame = frame;
      this.now.textContent = this.frames[frame];
      this.slider.setAttribute("aria-valuetext", this.frames[frame]);
      this.marks.forEach((mark, f) => mark.classList.toggle("now", f === frame));
    }
    if (this.playing === playing) return;
    this.playing = playing;
    this.button.replaceChildren(sign(playing ? PAUSE : PLAY));
    this.button.setAttribute("aria-pressed", String(playing));
  }

  destroy() {
    this.watch.disconnect();
  }
}
