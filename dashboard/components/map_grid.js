// Many small maps: one column per layer, one row per site. Columns that don't fit continue below.
//
// Points come as bytes and are drawn once for each size; they are seen on either theme; a click tells which map it was.

const LEAST = 64; // Pixels of a map's side.
const MOST = 168;
const GAP = 4;
const LABELS = 82; // Pixels of the names of rows.
const INSTANCES = new WeakMap();
const KEPT = new Map(); // id → bytes of every map, so that they travel once.
const MOST_KEPT = 24;

const bytes = (text) => Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));

const element = (name, className, text) => {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
};

// Bytes of every map; nothing where they did not come, and were not there before.
const find = ({ id, bytes: sent }) => {
  const found = sent ? sent.map(bytes) : KEPT.get(id);
  if (!found) return null;
  KEPT.delete(id);
  KEPT.set(id, found);
  if (KEPT.size > MOST_KEPT) KEPT.delete(KEPT.keys().next().value);
  return found;
};

class Grid {
  constructor(root) {
    this.root = root;
    this.raw = null;
    this.width = 0;
    this.observer = new ResizeObserver(() => this.arrange(false));
    this.observer.observe(root);
  }

  update(raw, send) {
    this.send = send;
    if (raw === this.raw) return;
    this.raw = raw;
    const data = JSON.parse(raw);
    const [points, colors] = [find(data.points), find(data.colors)];
    if (!points || !colors) {
      const missing = [points ? null : data.points.id, colors ? null : data.colors.id];
      this.send("missing", missing.filter(Boolean));
      return;
    }
    data.maps.forEach((map, k) => Object.assign(map, { points: points[k], colors: colors[k] }));
    this.data = data;
    this.palette = bytes(data.palette);
    this.arrange(true);
  }

  arrange(isNew) {
    const width = this.root.clientWidth;
    if (!this.data || width === 0 || (!isNew && width === this.width)) return;
    this.width = width;
    const { rows, columns, maps } = this.data;
    const room = width - LABELS - GAP;
    const most = Math.max(1, Math.floor((room + GAP) / (LEAST + GAP)));
    const nBands = Math.ceil(columns.length / most);
    // As many in each: a last band of two would look forgotten.
    const perBand = Math.ceil(columns.length / nBands);
    const side = Math.min(MOST, Math.floor((room + GAP) / perBand) - GAP);
    const held = this.root.getRootNode().activeElement;
    const focused = held && held.dataset ? held.dataset.map : undefined;
    this.root.replaceChildren();
    this.canvases = [];
    for (let first = 0; first < columns.length; first += perBand) {
      const shown = columns.slice(first, first + perBand);
      const band = element("div", "band");
      band.style.gridTemplateColumns = `${LABELS}px repeat(${shown.length}, ${side}px)`;
      band.append(element("div", ""));
      for (const name of shown) band.append(element("div", "column", name));
      rows.forEach((name, row) => {
        band.append(element("div", "row", name));
        shown.forEach((_, k) => {
          const number = maps.findIndex((map) => map.row === row && map.column === first + k);
          band.append(number < 0 ? element("div", "") : this.button(number, side));
        });
      });
      this.root.append(band);
    }
    if (focused !== undefined) this.root.querySelector(`[data-map="${focused}"]`)?.focus();
    this.paint();
  }

  button(number, side) {
    const map = this.data.maps[number];
    const made = element("button", map.first ? "first" : "");
    made.dataset.map = number;
    made.title = map.title;
    made.setAttribute("aria-label", map.title);
    const canvas = element("canvas");
    canvas.width = canvas.height = Math.round(side * Math.min(window.devicePixelRatio || 1, 2));
    made.append(canvas);
    if (map.note) made.append(element("span", "note", map.note));
    made.addEventListener("click", () => this.send("picked", number));
    this.canvases.push([canvas, map]);
    return made;
  }

  paint() {
    if (!this.canvases) return;
    for (const [canvas, map] of this.canvases) {
      // Pixel by pixel: a rectangle for each of a hundred thousand points would take seconds.
      const size = canvas.width;
      const context = canvas.getContext("2d");
      const picture = context.createImageData(size, size);
      const pixels = new Uint32Array(picture.data.buffer);
      const n = map.colors.length;
      // Small where points are many, so that they leave gaps.
      const dot = Math.max(1, Math.min(4, Math.round((size / Math.sqrt(n + 1)) * 0.4)));
      for (const inGroup of [false, true]) {
        const side = Math.max(inGroup ? 2 : 1, dot);
        const alpha = inGroup ? 255 : 190;
        for (let k = 0; k < n; k++) {
          if (map.colors[k] > 0 !== inGroup) continue;
          const [r, g, b] = this.palette.subarray(3 * map.colors[k], 3 * map.colors[k] + 3);
          const color = ((alpha << 24) | (b << 16) | (g << 8) | r) >>> 0;
          const left = Math.round((0.05 + (0.9 * map.points[2 * k]) / 255) * (size - side));
          const top = Math.round((0.95 - (0.9 * map.points[2 * k + 1]) / 255) * (size - side));
          for (let y = top; y < top + side; y++)
            pixels.fill(color, y * size + left, y * size + left + side);
        }
      }
      context.putImageData(picture, 0, 0);
    }
    this.root.dataset.drawn = String(this.canvases.length);
    this.root.dataset.paintedAt = String(performance.timeOrigin + performance.now());
  }

  destroy() {
    this.observer.disconnect();
  }
}

export default function (component) {
  const root = component.parentElement.querySelector(".map-grid");
  let grid = INSTANCES.get(root);
  if (!grid) {
    grid = new Grid(root);
    INSTANCES.set(root, grid);
  }
  const data = component.data;
  const text = typeof data === "string" ? data : new TextDecoder().decode(data);
  clearTimeout(grid.leaving);
  grid.update(text, component.setTriggerValue);
  return () => {
    // Called before every update too: only what is not drawn again has gone.
    grid.leaving = setTimeout(() => {
      grid.destroy();
      INSTANCES.delete(root);
    }, 1000);
  };
}
