// A table of coloured cells. Rows and columns have names that stay in sight while it scrolls; columns
// out of sight are not built. A click, or Enter, tells which cell it was.

const ROW = 25; // Pixels of a row, and of the names of columns.
const NAMES = 86; // Pixels of the names of rows.
const GAP = 2;
const BEYOND = 4; // Columns that are built beyond those in sight.
const INSTANCES = new WeakMap();
const GRIDS = new Map(); // id → what a table shows: it travels once, then only what is selected.
const MOST_GRIDS = 12;

const element = (name, className, text) => {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
};

class Cells {
  constructor(root) {
    this.root = root;
    this.raw = null;
    this.scroller = element("div", "scroller");
    this.tip = element("div", "tip");
    this.tip.hidden = true;
    root.append(this.scroller, this.tip);
    this.scroller.addEventListener("scroll", () => this.fill());
    this.scroller.addEventListener("click", (event) => this.pick(event.target));
    this.scroller.addEventListener("keydown", (event) => this.press(event));
    this.scroller.addEventListener("mouseover", (event) => this.point(event.target));
    this.scroller.addEventListener("focusin", (event) => this.point(event.target));
    this.scroller.addEventListener("mouseleave", () => (this.tip.hidden = true));
    this.scroller.addEventListener("focusout", () => (this.tip.hidden = true));
    this.scroller.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.tip.hidden = true;
    });
    this.observer = new ResizeObserver(() => this.fill());
    this.observer.observe(this.scroller);
  }

  update(raw, send) {
    this.send = send;
    if (raw === this.raw) return;
    this.raw = raw;
    const sent = JSON.parse(raw);
    const known = GRIDS.get(sent.id);
    if (!sent.cells && !known) {
      send("missing", [sent.id]);
      return;
    }
    GRIDS.delete(sent.id);
    GRIDS.set(sent.id, sent.cells ? sent : known);
    if (GRIDS.size > MOST_GRIDS) GRIDS.delete(GRIDS.keys().next().value);
    const data = { ...GRIDS.get(sent.id), selected: sent.selected };
    if (this.data?.id === data.id) {
      this.select(data);
      return;
    }
    const shape = (found) => JSON.stringify([found.rows, found.columns]);
    const isSame = this.data && shape(this.data) === shape(data);
    const held = this.root.getRootNode().activeElement?.dataset;
    const focused =
      isSame && held?.row !== undefined ? [Number(held.row), Number(held.column)] : null;
    this.data = data;
    this.at = focused ?? this.first();
    const { rows, columns, width } = data;
    this.width = width + GAP;
    this.scroller.style.maxHeight = `${data.height}px`;
    this.scroller.setAttribute("role", "grid");
    this.scroller.setAttribute("aria-label", data.label);
    this.scroller.setAttribute("aria-rowcount", rows.length + 1);
    this.scroller.setAttribute("aria-colcount", columns.length);
    const sheet = element("div", "sheet");
    sheet.style.width = `${NAMES + columns.length * this.width}px`;
    sheet.style.height = `${(rows.length + 1) * ROW}px`;
    this.head = element("div", "head");
    this.head.style.height = `${ROW}px`;
    this.head.setAttribute("role", "row");
    this.head.setAttribute("aria-rowindex", 1);
    const corner = element("div", "corner");
    corner.setAttribute("aria-hidden", "true");
    corner.style.cssText = `width: ${NAMES}px; height: ${ROW}px;`;
    this.head.append(corner);
    // Each cell's own label names its row.
    const names = element("div", "names");
    names.setAttribute("aria-hidden", "true");
    names.style.cssText = `width: ${NAMES}px; height: ${rows.length * ROW}px;`;
    rows.forEach((name, row) => {
      const made = element("div", "", name);
      made.title = name;
      made.style.cssText = `top: ${row * ROW}px; width: ${NAMES}px; line-height: ${ROW}px;`;
      names.append(made);
    });
    this.body = element("div", "");
    this.body.className = data.ink ? "inked" : "";
    this.lines = rows.map((_, row) => {
      const line = element("div", "");
      line.setAttribute("role", "row");
      line.setAttribute("aria-rowindex", row + 2);
      this.body.append(line);
      return line;
    });
    this.body.style.color = data.ink;
    sheet.append(this.head, names, this.body);
    this.built = new Map();
    const [top, left] = [this.scroller.scrollTop, this.scroller.scrollLeft];
    this.scroller.replaceChildren(sheet);
    if (isSame) this.scroller.scrollTo(left, top);
    else this.show(...this.at);
    this.fill();
    if (focused) this.button(...focused)?.focus({ preventScroll: true });
    this.root.dataset.paintedAt = String(performance.timeOrigin + performance.now());
  }

  // The same table with another cell chosen: nothing is rebuilt.
  select(data) {
    this.data = data;
    const [row, column] = data.selected;
    for (const [at, [name, ...buttons]] of this.built) {
      name.classList.toggle("selected", at === column);
      buttons.forEach((button, k) => this.mark(button, k === row && at === column));
    }
    const isHeld = this.root.getRootNode().activeElement?.dataset?.row !== undefined;
    if (row !== null && column !== null && !isHeld) {
      this.show(row, column);
      this.move(row, column);
    }
    this.root.dataset.paintedAt = String(performance.timeOrigin + performance.now());
  }

  mark(button, isChosen) {
    button.classList.toggle("selected", isChosen);
    button.setAttribute("aria-selected", String(isChosen));
  }

  // The cell that the tab key leads to; its column is built wherever it is.
  move(row, column) {
    const before = this.button(...this.at);
    if (before) before.tabIndex = -1;
    this.at = [row, column];
    this.fill();
    const next = this.button(row, column);
    if (next) next.tabIndex = 0;
    return next;
  }

  first() {
    const [row, column] = this.data.selected;
    return [row ?? 0, column ?? 0];
  }

  // Bring a cell into sight.
  show(row, column) {
    const { scroller } = this;
    const x = column * this.width;
    const y = row * ROW;
    const room = [scroller.clientWidth - NAMES - this.width, scroller.clientHeight - 2 * ROW];
    if (x < scroller.scrollLeft || x > scroller.scrollLeft + room[0])
      scroller.scrollLeft = Math.max(0, x - room[0] / 2);
    if (y < scroller.scrollTop || y > scroller.scrollTop + room[1])
      scroller.scrollTop = Math.max(0, y - room[1] / 2);
  }

  fill() {
    if (!this.data) return;
    const { columns } = this.data;
    const { scrollLeft, clientWidth } = this.scroller;
    const low = Math.max(0, Math.floor(scrollLeft / this.width) - BEYOND);
    const high = Math.min(
      columns.length,
      Math.ceil((scrollLeft + clientWidth) / this.width) + BEYOND,
    );
    const isWanted = (column) => (column >= low && column < high) || column === this.at[1];
    for (const [column, parts] of this.built)
      if (!isWanted(column)) {
        parts.forEach((part) => part.remove());
        this.built.delete(column);
      }
    const wanted = [this.at[1]];
    for (let column = low; column < high; column++) wanted.push(column);
    for (const column of wanted)
      if (column < columns.length && !this.built.has(column))
        this.built.set(column, this.build(column));
    this.root.dataset.columns = `${low}-${high} of ${columns.length}`;
  }

  build(column) {
    const { rows, columns, cells, words, selected } = this.data;
    const left = NAMES + column * this.width;
    const name = element("div", column === selected[1] ? "selected" : "", columns[column]);
    name.title = columns[column];
    name.setAttribute("role", "columnheader");
    name.setAttribute("aria-colindex", column + 1);
    name.style.cssText = `left: ${left}px; top: 0; height: ${ROW - 2}px; width: ${this.width - GAP}px; line-height: ${ROW - 4}px;`;
    this.head.append(name);
    const made = [name];
    rows.forEach((_, row) => {
      const [text, fill, tip] = cells[row][column].map((k) => words[k]);
      const button = element("button", "", text);
      const isChosen = row === selected[0] && column === selected[1];
      this.mark(button, isChosen);
      button.dataset.row = row;
      button.dataset.column = column;
      button.tabIndex = row === this.at[0] && column === this.at[1] ? 0 : -1;
      button.setAttribute("role", "gridcell");
      button.setAttribute("aria-colindex", column + 1);
      button.setAttribute(
        "aria-label",
        `${this.data.rows[row]}, ${columns[column]}: ${tip || text}`,
      );
      button.style.cssText = `left: ${left}px; top: ${(row + 1) * ROW}px; width: ${this.width - GAP}px; height: ${ROW - GAP}px; background: ${fill || "transparent"};`;
      this.lines[row].append(button);
      made.push(button);
    });
    return made;
  }

  button(row, column) {
    return this.body.querySelector(`[data-row="${row}"][data-column="${column}"]`);
  }

  pick(target) {
    const { row, column } = target.dataset ?? {};
    if (row === undefined) return;
    this.move(Number(row), Number(column));
    this.send("picked", this.at);
  }

  press(event) {
    const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    const { row, column } = event.target.dataset ?? {};
    if (row === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    const { rows, columns } = this.data;
    let to = null;
    if (steps[event.key])
      to = [Number(row) + steps[event.key][0], Number(column) + steps[event.key][1]];
    if (event.key === "Home") to = [Number(row), 0];
    if (event.key === "End") to = [Number(row), columns.length - 1];
    if (!to) return;
    // The page's own keys, such as those of a neuron's neighbours, are not meant.
    event.preventDefault();
    event.stopPropagation();
    if (to[0] < 0 || to[1] < 0 || to[0] >= rows.length || to[1] >= columns.length) return;
    this.show(...to);
    this.move(...to).focus({ preventScroll: true });
  }

  point(target) {
    const { row, column } = target.dataset ?? {};
    const text = row === undefined ? "" : this.data.words[this.data.cells[row][column][2]];
    this.tip.hidden = !text;
    if (!text) return;
    this.tip.replaceChildren();
    for (const line of text.split("\n")) {
      const [left, right] = line.split("\t");
      if (right === undefined) this.tip.append(element("div", "whole", left));
      else this.tip.append(element("div", "left", left), element("div", "right", right));
    }
    const box = target.getBoundingClientRect();
    const own = this.tip.getBoundingClientRect();
    const below = box.bottom + 6 + own.height < window.innerHeight;
    const x = Math.max(8, Math.min(box.left, window.innerWidth - own.width - 12));
    this.tip.style.left = `${x}px`;
    this.tip.style.top = `${below ? box.bottom + 6 : Math.max(8, box.top - own.height - 6)}px`;
  }

  destroy() {
    this.observer.disconnect();
  }
}

export default function (component) {
  const root = component.parentElement.querySelector(".cell-grid");
  let cells = INSTANCES.get(root);
  if (!cells) {
    cells = new Cells(root);
    INSTANCES.set(root, cells);
  }
  const data = component.data;
  const text = typeof data === "string" ? data : new TextDecoder().decode(data);
  clearTimeout(cells.leaving);
  cells.update(text, component.setTriggerValue);
  return () => {
    // Called before every update too: only what is not drawn again has gone.
    cells.leaving = setTimeout(() => {
      cells.destroy();
      INSTANCES.delete(root);
    }, 1000);
  };
}
