// The picture's canvases, one over another, with what stands on them: hint, tip and two buttons.

import { element } from "./store.js";

const HINT_SHOWN_MS = 1800;

export class LayerStage {
  constructor({ resetCamera, savePicture }) {
    this.place = element("div", "stage");
    // Floor and density under the points, names above them.
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
      this.under, this.middle, this.overlay, this.tip, this.hint, this.accent, this.tools,
    );
  }

  tool(className, text, title, click) {
    const made = element("button", className, text);
    // The keys stay with the player: a click moves no focus.
    Object.assign(made, { title, onclick: click, onmousedown: (event) => event.preventDefault() });
    made.setAttribute("aria-label", title);
    return made;
  }

  // Of elements, not of the page's variables: those may hold what a canvas can't read.
  colors() {
    const stage = getComputedStyle(this.place);
    return {
      text: stage.color,
      page: stage.backgroundColor,
      font: stage.fontFamily,
      mark: getComputedStyle(this.accent).color,
    };
  }

  // Pens of the canvases below and above the points, in CSS pixels; null where there is no room. The
  // one above is cleared; the one below stays as it is while `below` says the same of it, for what is
  // sent to the screen anew costs as much as what is drawn: then there is no pen of it.
  begin(below) {
    const [width, height] = [this.place.clientWidth, this.place.clientHeight];
    if (!width || !height) return null;
    const ratio = Math.min(window.devicePixelRatio || 1, 2);
    const [wide, high] = [Math.round(width * ratio), Math.round(height * ratio)];
    for (const canvas of [this.under, this.middle, this.overlay])
      if (canvas.width !== wide || canvas.height !== high)
        Object.assign(canvas, { width: wide, height: high });
    const key = `${below} ${wide} ${high}`;
    const isSame = this.drawnBelow === key;
    this.drawnBelow = key;
    const pen = (canvas) => {
      const made = canvas.getContext("2d");
      made.setTransform(ratio, 0, 0, ratio, 0, 0);
      made.clearRect(0, 0, width, height);
      made.globalAlpha = 1;
      return made;
    };
    return { below: isSame ? null : pen(this.under), above: pen(this.overlay), width, height, ratio };
  }

  // What was painted just now, on the page's ground: afterwards the browser may have cleared it.
  save(name, ground) {
    const picture = element("canvas");
    Object.assign(picture, { width: this.overlay.width, height: this.overlay.height });
    const pen = picture.getContext("2d");
    pen.fillStyle = ground;
    pen.fillRect(0, 0, picture.width, picture.height);
    for (const canvas of [this.under, this.middle, this.overlay]) pen.drawImage(canvas, 0, 0);
    const link = element("a");
    link.download = `${name.replace(/[^\w.]+/g, "-")}.png`;
    link.href = picture.toDataURL("image/png");
    link.click();
  }

  showHint() {
    const key = /Mac|iPhone|iPad/.test(navigator.platform) ? "⌘" : "Ctrl";
    this.hint.textContent = `Hold ${key} and turn the wheel to zoom`;
    this.hint.classList.add("seen");
    clearTimeout(this.hinting);
    this.hinting = setTimeout(() => this.hint.classList.remove("seen"), HINT_SHOWN_MS);
  }

  showTip(lines, event) {
    this.tip.replaceChildren(...lines.map(([kind, text]) => element("div", kind, text)));
    this.tip.hidden = false;
    const area = this.place.getBoundingClientRect();
    const x = event.clientX - area.left;
    this.tip.style.left = `${Math.max(4, Math.min(x + 14, area.width - this.tip.offsetWidth - 4))}px`;
    this.tip.style.top = `${Math.max(4, event.clientY - area.top - this.tip.offsetHeight - 10)}px`;
    this.overlay.style.cursor = "pointer";
  }

  hideTip() {
    this.tip.hidden = true;
    this.overlay.style.cursor = "";
  }
}
