// Beside the map: the chosen neuron's nearest by ρ, and the groups. Both lists and the map are
// linked: what is pointed at or clicked in one is lit in the other.

import { element, signed } from "./store.js";

const rho = (value) => (value === null ? "" : signed(value.toFixed(2)));

export class Beside {
  // `on`: what a list does to the map; see NeuronMap.
  constructor(place, on) {
    this.place = place;
    this.on = on;
    this.rows = new Map(); // group → its row
  }

  show(panel, index, colorOf) {
    const top = this.list ? this.list.scrollTop : 0;
    this.rows.clear();
    this.list = null;
    const parts = [];
    if (panel && panel.selected !== null && panel.selected !== undefined)
      parts.push(this.nearest(panel, index));
    if (panel && panel.groups.length) parts.push(this.groups(panel, index, colorOf));
    this.place.hidden = parts.length === 0;
    this.place.replaceChildren(...parts);
    if (this.list) this.list.scrollTop = top;
    this.light(panel ? panel.group : null);
  }

  nearest(panel, index) {
    const made = element("section", "nearest");
    const texts = panel.texts && panel.texts.labels;
    const head = element("div", "head");
    head.append(element("b", "", `${panel.name} N${panel.selected}`));
    if (texts && texts[panel.selected]) head.append(element("code", "", texts[panel.selected]));
    head.title = head.textContent;
    made.append(head);
    if (!panel.near.length) return made;
    made.append(element("div", "note", `Its ${panel.near.length} most correlated neurons, with ρ`));
    for (const [i, value] of panel.near) {
      const row = element("div", "row near");
      row.append(
        element("span", "number", `N${i}`),
        element("span", "what", (texts && texts[i]) || ""),
      );
      row.title = `N${i}${texts && texts[i] ? `: ${texts[i]}` : ""}`;
      const bar = element("span", "share");
      bar.style.setProperty("--share", `${Math.round(100 * Math.abs(value))}%`);
      row.append(bar, element("span", "rho", rho(value)));
      this.act(
        row,
        () => this.on.pick(index, i),
        (isOn) => this.on.pointAt(index, isOn ? i : null),
      );
      made.append(row);
    }
    const isolate = element("button", "isolate", panel.only ? "Show all" : "Isolate");
    isolate.title = panel.only ? "Show all neurons again" : "Show only these neurons";
    isolate.onclick = () => this.on.isolate(index, panel.only ? null : panel.selected);
    made.append(isolate);
    return made;
  }

  groups(panel, index, colorOf) {
    const made = element("section", "groups");
    const head = element("div", "head");
    head.append(element("b", "", panel.groups_title || "Poles"));
    made.append(head);
    if (panel.groups_note) made.append(element("div", "note", panel.groups_note));
    const columns = element("div", "columns");
    for (const [kind, text] of [
      ["what", "fires on"],
      ["size", "neurons"],
      ["rho", "ρ inside"],
    ])
      columns.append(element("span", kind, text));
    made.append(columns);
    this.list = element("div", "list");
    let before = null;
    panel.groups.forEach((group, k) => {
      if (group.state === "weak" && before !== "weak")
        this.list.append(element("div", "part", "Weak: not above chance"));
      before = group.state;
      const row = element("div", `row group ${group.state}`);
      const dot = element("span", "dot");
      dot.style.background = colorOf(group, false);
      row.append(
        dot,
        element("span", "what", group.label),
        element("span", "size", String(group.size)),
        element("span", "rho", rho(group.rho)),
      );
      row.title = [group.label, group.note || group.title].join("\n");
      row.dataset.pole = String(group.number);
      this.act(
        row,
        () => this.on.choose(index, k),
        (isOn) => this.on.focus(index, isOn ? k : null),
      );
      this.rows.set(k, row);
      this.list.append(row);
    });
    if (panel.groups_more) this.list.append(element("div", "part", panel.groups_more));
    made.append(this.list);
    return made;
  }

  act(row, click, point) {
    row.tabIndex = 0;
    row.setAttribute("role", "button");
    row.onclick = click;
    row.onkeydown = (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      event.stopPropagation();
      click();
    };
    row.onpointerenter = () => point(true);
    row.onpointerleave = () => point(false);
  }

  // The row of a group that is chosen, and of one that is pointed at on the map.
  light(chosen, pointed = null) {
    for (const [k, row] of this.rows) {
      row.classList.toggle("chosen", k === chosen);
      row.setAttribute("aria-pressed", String(k === chosen));
      row.classList.toggle("pointed", k === pointed);
    }
  }
}
