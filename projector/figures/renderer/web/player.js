// Time: frames that follow each other in a loop, with all that lies between them.

const PACE = 0.7; // Seconds from one frame to the next, at first.
const HELD = 1.2; // How long the last frame stays before the first, in paces.
const LONGEST = 0.25; // Seconds: a page that was not seen goes on where it was.
const REST = 250; // Milliseconds after the last step, until it counts as a rest.

export class Player {
  // `redraw()` after each change; `tell(frame)` where the user came to rest.
  constructor({ nFrames, redraw, tell }) {
    Object.assign(this, { nFrames, redraw, tell });
    this.at = 0; // In frames: 2.5 is half way from the third to the fourth.
    this.playing = false;
    this.pace = PACE;
    this.held = 0;
    this.ticks = [];
  }

  // As what keys step through; see Keys.
  get length() {
    return this.nFrames;
  }
  get current() {
    return Math.round(this.at);
  }

  // Ticks in the last second: how often what is drawn moved.
  get fps() {
    return this.ticks.length;
  }

  // Other frames; the time stays where it can.
  show(nFrames) {
    this.nFrames = nFrames;
    this.at = Math.min(this.at, nFrames - 1);
    if (nFrames < 2) this.pause();
  }

  play(on = true) {
    if (on === this.playing || (on && this.nFrames < 2)) return;
    this.playing = on;
    cancelAnimationFrame(this.ticking);
    clearTimeout(this.telling);
    if (on) {
      this.before = null;
      this.held = 0;
      this.ticks = [];
      this.ticking = requestAnimationFrame((now) => this.tick(now));
    } else {
      // A frame is read, what lies between is looked at.
      this.at = this.current;
      this.tellLater();
    }
    this.redraw();
  }

  pause() {
    this.play(false);
  }

  // One frame on or back; from the last comes the first.
  step(by) {
    this.goTo((this.current + by + this.nFrames) % this.nFrames, true);
  }

  // To a whole frame, and stay there.
  goTo(frame, tell = true) {
    this.scrub(Math.round(frame));
    if (tell) this.tellLater();
  }

  // To any time while something is dragged; what lets go calls goTo.
  scrub(at) {
    if (this.playing) {
      this.playing = false;
      cancelAnimationFrame(this.ticking);
    }
    clearTimeout(this.telling);
    this.at = Math.max(0, Math.min(this.nFrames - 1, at));
    this.redraw();
  }

  tellLater() {
    clearTimeout(this.telling);
    this.telling = setTimeout(() => this.tell(this.current), REST);
  }

  tick(now) {
    if (!this.playing) return;
    const passed = this.before === null ? 0 : Math.min((now - this.before) / 1000, LONGEST);
    this.before = now;
    this.ticks = [...this.ticks.filter((tick) => now - tick < 1000), now];
    this.advance(passed / this.pace);
    this.redraw();
    this.ticking = requestAnimationFrame((next) => this.tick(next));
  }

  // By so many frames; over the end, after a pause, to the start.
  advance(by) {
    const last = this.nFrames - 1;
    if (this.at < last) {
      this.at = Math.min(last, this.at + by);
      this.held = 0;
      return;
    }
    this.held += by;
    if (this.held >= HELD) this.at = 0;
  }

  destroy() {
    this.playing = false;
    cancelAnimationFrame(this.ticking);
    clearTimeout(this.telling);
  }
}
