// Where a picture is drawn: canvases one over another, with what stands on them — buttons, a tip at
// the pointer, a hint how to zoom — and the colours of the theme.

import { element } from "./store.js";

const HINT_MS = 1800;

export class Stage {
  // `redraw()`, if given, where its size or the theme may be another.
  constructor({ redraw = null, resetCamera, savePicture }) {
    this.place = element("div", "stage");
    // The frame under the points, marks and text above them.
    this.under = element("canvas", "under");
    this.middle = element("canvas", "points");
    this.overlay = element("canvas", "overlay");
    this.overlay.tabIndex = 0;
    this.overlay.setAttribute("role", "application");
    this.tip = element("div", "tip");
    this.tip.hidden = true;
    this.hint = element("div", "hint");
    this.accent = element("span", "accent");
    this.tools = element("div", "tools");
    this.tools.append(
      this.tool("save", "PNG", "Save as PNG", savePicture),
      this.tool("home", "⟲", "Reset view (R, or double click)", resetCamera),
    );
    this.place.append(
      this.under,
      this.middle,
      this.overlay,
      this.tip,
      this.hint,
      this.accent,
      this.tools,
    );
    if (redraw) this.watch(redraw);
  }

  // The page's own colours follow its theme; what is drawn does not know of a change otherwise.
  watch(redraw) {
    this.observer = new ResizeObserver(redraw);
    this.observer.observe(this.place);
    this.place.addEventListener("transitionend", redraw);
    this.themeWatch = new MutationObserver(redraw);
    for (const each of [document.documentElement, document.body])
      this.themeWatch.observe(each, { attributes: true });
    this.scheme = matchMedia("(prefers-color-scheme: dark)");
    this.redraw = redraw;
    this.scheme.addEventListener("change", redraw);
  }

  // A button of the stage's own.
  tool(className, text, title, click) {
    const made = element("button", className, text);
    made.title = title;
    made.setAttribute("aria-label", title);
    made.onclick = click;
    return made;
  }

  // All canvases as large as the stage: its { width, height, ratio } in CSS pixels, and whether it had
  // another size before; null where there is no room.
  fit() {
    const [width, height] = [this.place.clientWidth, this.place.clientHeight];
    if (!width || !height) return null;
    const ratio = Math.min(window.devicePixelRatio || 1, 2);
    const [wide, high] = [Math.round(width * ratio), Math.round(height * ratio)];
    let isOther = false;
    for (const canvas of [this.under, this.middle, this.overlay])
      if (canvas.width !== wide || canvas.height !== high) {
        Object.assign(canvas, { width: wide, height: high });
        isOther = true;
      }
    return { width, height, ratio, isOther };
  }

  // The pen of a canvas that is cleared, in CSS pixels.
  pen(canvas, { width, height, ratio }) {
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    pen.globalAlpha = 1;
    return pen;
  }

  // Of elements, not of the page's variables: those may hold what a canvas can't read.
  colors() {
    const stage = getComputedStyle(this.place);
    return {
      text: stage.color,
      page: stage.backgroundColor,
      mark: getComputedStyle(this.accent).color,
      font: stage.fontFamily,
    };
  }

  // What was painted just now, as a file: afterwards the browser may have cleared what WebGL drew.
  save(name) {
    const picture = element("canvas");
    Object.assign(picture, { width: this.overlay.width, height: this.overlay.height });
    const pen = picture.getContext("2d");
    pen.fillStyle = this.colors().page;
    pen.fillRect(0, 0, picture.width, picture.height);
    for (const canvas of [this.under, this.middle, this.overlay]) pen.drawImage(canvas, 0, 0);
    const link = element("a");
    link.download = `${name}.png`.replace(/[^\w.]+/g, "-");
    link.href = picture.toDataURL("image/png");
    link.click();
  }

  hintText(key) {
    return `${key} and wheel, or a click into the map first, to zoom`;
  }

  showHint() {
    const held = /Mac|iPhone|iPad/.test(navigator.platform) ? "⌘" : "Ctrl";
    this.hint.textContent = this.hintText(held);
    this.hint.classList.add("seen");
    clearTimeout(this.hinting);
    this.hinting = setTimeout(() => this.hint.classList.remove("seen"), HINT_MS);
  }

  // Lines of text, as elements, beside the pointer.
  showTip(lines, event) {
    this.tip.replaceChildren(...lines);
    this.tip.hidden = false;
    const area = this.place.getBoundingClientRect();
    const x = event.clientX - area.left;
    const left = Math.min(x + 14, area.width - this.tip.offsetWidth - 4);
    this.tip.style.left = `${Math.max(4, left)}px`;
    this.tip.style.top = `${Math.max(4, event.clientY - area.top - this.tip.offsetHeight - 8)}px`;
    this.overlay.style.cursor = "pointer";
  }

  // Whether there was one.
  hideTip() {
    if (this.tip.hidden) return false;
    this.tip.hidden = true;
    this.overlay.style.cursor = "";
    return true;
  }

  destroy() {
    clearTimeout(this.hinting);
    if (!this.redraw) return;
    this.observer.disconnect();
    this.themeWatch.disconnect();
    this.scheme.removeEventListener("change", this.redraw);
  }
}
