// Tokens that a map steps through, in a row; of two prompts two rows.

import { PAUSE, PLAY, sign } from "./signs.js";
import { element } from "./store.js";

// The background and title of a token: they change while the tokens stay.
const color = (span, token) => {
  span.title = token.title;
  span.classList.toggle("colored", Boolean(token.color));
  if (token.color) span.style.setProperty("--fill", token.color);
  else span.style.removeProperty("--fill");
};

export class Timeline {
  // `redraw` after a step; `tell` where the user came to rest; `focus` gives the map the keys.
  constructor(place, { redraw, tell, focus }) {
    Object.assign(this, { place, redraw, tell, focus });
    this.token = 0;
    this.playing = false;
    this.nTokens = 0;
    this.rows = [];
    this.playButton = element("button", "play");
    this.playButton.setAttribute("aria-label", "Play or pause (Space)");
    this.playButton.title = "Play or pause (Space)";
    this.playButton.onclick = () => this.play(!this.playing);
    this.showPlaying();
    this.slider = element("input", "slider");
    this.slider.type = "range";
    this.slider.min = "0";
    this.slider.setAttribute("aria-label", "Token");
    this.slider.oninput = () => this.goTo(Number(this.slider.value), true);
    this.speed = element("select", "speed");
    this.speed.setAttribute("aria-label", "Tokens per second");
    for (const rate of [1, 2, 4, 8, 20, 30]) {
      const option = element("option", "", `${rate} tokens/s`);
      option.value = String(rate);
      option.selected = rate === 4;
      this.speed.append(option);
    }
    this.count = element("span", "count");
    const row = element("div", "controls");
    row.append(this.playButton, this.slider, this.count, this.speed);
    this.strips = element("div", "strips");
    place.append(row, this.strips);
  }

  // As what keys step through; see Keys.
  get length() {
    return this.nTokens;
  }
  get current() {
    return this.token;
  }

  stripOf(tokens, name) {
    const strip = element("div", "strip");
    if (name) strip.append(element("span", "which", name));
    const spans = tokens.map((each, i) => {
      // No button: those are blocks, and a line that ends within one would not end here.
      const span = element("span", each.made ? "token made" : "token", each.text);
      span.setAttribute("role", "button");
      span.tabIndex = -1;
      color(span, each);
      // The focus stays out of the row: it would mark this token beside the current one.
      span.onmousedown = (event) => event.preventDefault();
      span.onclick = () => {
        this.goTo(i, true);
        this.focus();
      };
      return span;
    });
    strip.append(...spans);
    return { strip, spans };
  }

  show(prompts, token, id) {
    this.nTokens = Math.max(...prompts.map((tokens) => tokens.length));
    this.place.hidden = this.nTokens === 0;
    if (this.id !== id) {
      this.id = id;
      clearTimeout(this.telling);
      this.play(false, true);
      const given = prompts.filter((tokens) => tokens.length);
      this.rows = given.map((tokens, k) => this.stripOf(tokens, given.length > 1 ? "AB"[k] : ""));
      this.strips.replaceChildren(...this.rows.map((row) => row.strip));
      this.slider.max = String(Math.max(0, this.nTokens - 1));
      this.told = [];
      this.served = token;
      this.goTo(token, false);
      // Keys step through the tokens from here on, where they are not needed elsewhere.
      const active = document.activeElement;
      if (this.nTokens && active && active.tagName === "BUTTON") this.focus();
      return;
    }
    const given = prompts.filter((tokens) => tokens.length);
    this.rows.forEach(({ spans }, k) => spans.forEach((span, i) => color(span, given[k][i])));
    // The server says again what it was told, when the user may be further on already.
    const echo = this.told.indexOf(token);
    if (echo >= 0) this.told.splice(0, echo + 1);
    else if (token !== this.served && !this.playing) this.goTo(token, false);
    this.served = token;
  }

  goTo(token, tell) {
    const last = Math.max(0, this.nTokens - 1);
    this.token = Math.max(0, Math.min(last, token));
    this.slider.value = String(this.token);
    this.count.textContent = `${this.token + 1} of ${this.nTokens}`;
    for (const row of this.rows) {
      const { strip, spans } = row;
      const now = spans[Math.min(this.token, spans.length - 1)];
      if (now === row.now) continue;
      if (row.now) row.now.classList.remove("now");
      row.now = now;
      now.classList.add("now");
      const [top, height] = [now.offsetTop - strip.offsetTop, strip.clientHeight];
      if (top < strip.scrollTop || top + now.offsetHeight > strip.scrollTop + height)
        strip.scrollTop = top - height / 2;
    }
    this.redraw();
    if (tell && !this.playing) this.tellLater();
  }

  // The server is told where the user came to rest, not of every step.
  tellLater() {
    clearTimeout(this.telling);
    this.telling = setTimeout(() => {
      const known = this.told.length ? this.told[this.told.length - 1] : this.served;
      if (known === this.token) return;
      this.told.push(this.token);
      this.tell(this.token);
    }, 250);
  }

  showPlaying() {
    this.playButton.replaceChildren(sign(this.playing ? PAUSE : PLAY));
    this.playButton.setAttribute("aria-pressed", String(this.playing));
  }

  play(on, quiet) {
    if (on === this.playing) return;
    this.playing = on;
    this.showPlaying();
    cancelAnimationFrame(this.ticking);
    if (!on) {
      if (!quiet) this.tellLater();
      return;
    }
    if (this.token >= this.nTokens - 1) this.goTo(0, false);
    let next = performance.now() + 1000 / Number(this.speed.value);
    const tick = (now) => {
      if (!this.playing) return;
      if (now >= next) {
        // As fast as the screen is, and no frame skipped.
        next = Math.max(next + 1000 / Number(this.speed.value), now);
        if (this.token >= this.nTokens - 1) {
          this.play(false);
          return;
        }
        this.goTo(this.token + 1, false);
      }
      this.ticking = requestAnimationFrame(tick);
    };
    this.ticking = requestAnimationFrame(tick);
  }

  destroy() {
    this.play(false, true);
    clearTimeout(this.telling);
  }
}
