// What is in hand, what the lens predicts there, and how far the frame shown can be trusted.

import { said } from "./layer_colors.js";
import { Roving } from "./roving.js";
import { element } from "./store.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDE = 100;
const TALL = 30;

const shape = (name, attributes) => {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
};

const percent = (part) => {
  if (!Number.isFinite(part)) return "";
  return part >= 0.0995 || part === 0
    ? `${Math.round(100 * part)} %`
    : `${(100 * part).toPrecision(2)} %`;
};

const MEASURES = [
  {
    name: "variance",
    title:
      "Share of the variance of this frame that the picture shows, compared with the same map of as many particles whose coordinates are shuffled.",
    value: (each) => each.variance_explained,
    control: ({ variance_shuffled: shuffled }) => (known(shuffled) ? "shuffled" : "random"),
    chance: (each) => each.variance_shuffled ?? each.variance_random,
  },
  {
    name: "neighbours",
    title:
      "Share of each particle’s nearest particles in the picture that are also nearest in full space, compared with random projections.",
    value: (each) => each.neighbours_kept,
    control: ({ neighbours_random: random }) => (known(random) ? "random" : "chance"),
    chance: (each) => each.neighbours_random ?? each.neighbours_chance,
    more: ({ neighbours_k: k }) => (known(k) ? ` Nearest are ${k}.` : ""),
  },
  {
    name: "moves",
    isOfMotion: true,
    title:
      "Rank correlation, over particles, of how far each moves from the frame before, in the map and in full space, compared with random projections.",
    value: (each) => each.displacement_correlation,
    control: () => "random",
    // Random planes keep some of it, too: a long way is a long way from most sides.
    chance: (each) => each.displacement_random,
  },
];

const CONTROLS = {
  random: "random projections",
  shuffled: "shuffled coordinates",
  chance: "chance",
};

const known = (value) => typeof value === "number" && Number.isFinite(value);

const share = (value) => (known(value) ? value.toFixed(2).replace("-", "−") : "–");

export class LayerSide {
  // `goTo(frame)` shows a frame.
  constructor(place, { goTo }) {
    this.place = place;
    this.goTo = goTo;
    this.held = element("section", "in-hand");
    this.trust = element("section", "trust");
    this.roving = new Roving();
    place.append(this.held, this.trust);
  }

  show(data, particles, lens) {
    Object.assign(this, { data, particles, lens, shown: null });
    this.showTrust();
  }

  // Frame by frame: the value as a line, chance dashed, this frame marked.
  showTrust() {
    const { fidelity, displacement_correlation: pooled, displacement_random: random } = this.data;
    const head = element("h3", "", "How far to trust this frame");
    this.trust.hidden = !fidelity.length;
    const measured = MEASURES.filter(({ value }) => fidelity.some((each) => known(value(each))));
    this.measures = measured.map((measure) => {
      const row = element("div", "measure");
      const number = element("span", "value");
      const chance = element("span", "chance");
      const picture = this.sparkline(fidelity.map(measure.value), fidelity.map(measure.chance));
      row.append(element("span", "what", measure.name), picture.svg, number, chance);
      const title = `${measure.title} The curves go from ${share(picture.least)} to 1, over the layers.`;
      return {
        ...measure,
        title,
        low: picture.least,
        number,
        chanceText: chance,
        cursor: picture.cursor,
        row,
      };
    });
    this.reason = element("p", "quiet");
    this.ofMap = element(
      "p",
      "quiet of-map",
      "Moves are measured on the map: in the picture, each layer has its own scale.",
    );
    // What each dashed curve is, and between which values all are drawn.
    const dashed = new Map();
    for (const { name, control } of this.measures) {
      const of = fidelity.map(control).find(Boolean);
      dashed.set(of, [...(dashed.get(of) || []), name]);
    }
    const words = [...dashed].map(([of, names]) => `${CONTROLS[of]} (${names.join(", ")})`);
    const isBelow = this.measures.some(({ low }) => low < 0);
    const key = element(
      "p",
      "quiet key",
      `Solid: this picture; dashed: ${words.join(" or ")}. From bottom to top: 0 to 1${isBelow ? ", below 0 if values are negative" : ""}.`,
    );
    const parts = [head, ...this.measures.map((each) => each.row), key, this.reason];
    if (known(pooled))
      parts.push(
        element(
          "p",
          "quiet",
          `Moves over all frames: ${share(pooled)}${known(random) ? ` (random ${share(random)})` : ""}.`,
        ),
      );
    this.trust.replaceChildren(
      ...parts,
      ...(measured.some((each) => each.isOfMotion) ? [this.ofMap] : []),
    );
  }

  sparkline(values, chances) {
    const svg = shape("svg", {
      viewBox: `0 0 ${WIDE} ${TALL}`,
      preserveAspectRatio: "none",
      class: "spark",
    });
    svg.setAttribute("aria-hidden", "true");
    const n = values.length;
    const low = Math.min(0, ...values.filter(known));
    const x = (f) => 2 + (f / Math.max(1, n - 1)) * (WIDE - 4);
    const y = (value) => TALL - 2 - ((value - low) / (1 - low)) * (TALL - 4);
    const path = (row) => {
      let text = "";
      row.forEach((value, f) => {
        if (known(value))
          text += `${known(row[f - 1]) ? "L" : "M"}${x(f).toFixed(2)} ${y(value).toFixed(2)}`;
      });
      return text;
    };
    const cursor = shape("line", { y1: 0, y2: TALL, class: "cursor" });
    svg.append(
      shape("line", { x1: 0, x2: WIDE, y1: y(0), y2: y(0), class: "base" }),
      shape("path", { d: path(chances), class: "by-chance" }),
      shape("path", { d: path(values), class: "line" }),
      cursor,
    );
    svg.onclick = (event) => {
      const area = svg.getBoundingClientRect();
      const across = (event.clientX - area.left) / area.width;
      this.goTo(Math.max(0, Math.min(n - 1, Math.round(across * (n - 1)))));
    };
    return {
      svg,
      least: low,
      cursor: (f) => [1, 2].forEach((k) => cursor.setAttribute(`x${k}`, x(f))),
    };
  }

  // `held`: { particle, prompt, token } or null; `isScaled`: whether frames have scales of their own on
  // the picture. Only what is others is drawn anew.
  update(frame, held, isScaled) {
    const key = held ? `${held.particle} ${held.prompt} ${held.token}` : "";
    if (this.shown !== key) {
      this.shown = key;
      this.showHeld(held);
    }
    this.updateTrust(frame, isScaled);
    // Last: how much room its list has is known by then.
    this.updateHeld(frame, held);
  }

  updateTrust(frame, isScaled) {
    const found = this.data.fidelity[frame];
    if (!found) return;
    this.ofMap.hidden = !isScaled;
    for (const {
      value,
      chance,
      control,
      more,
      row,
      title,
      number,
      chanceText,
      cursor,
      isOfMotion,
    } of this.measures) {
      row.classList.toggle("paled", Boolean(isOfMotion && isScaled));
      number.textContent = share(value(found));
      chanceText.textContent = known(chance(found))
        ? `${control(found)} ${share(chance(found))}`
        : "";
      row.title = title + (more ? more(found) : "");
      cursor(frame);
    }
    const told = found.reason ? [`${found.reason[0].toUpperCase()}${found.reason.slice(1)}.`] : [];
    const { neighbours_kept: kept, neighbours_random: random } = found;
    if (known(kept) && known(random) && kept <= random)
      told.unshift("Here a random projection keeps as many neighbours.");
    this.reason.textContent = told.join(" ");
    this.reason.hidden = !told.length;
  }

  showHeld(held) {
    this.lensRows = [];
    if (!held) {
      this.held.replaceChildren(
        element("h3", "", "Selected"),
        element("p", "quiet", "Click a token or a particle to follow it."),
      );
      return;
    }
    const { data, particles } = this;
    const prompt = data.prompts[held.prompt];
    const token = held.token < 0 ? null : prompt.tokens[held.token];
    const part = particles.part[held.particle];
    const name = element("code", "name", token ? token.name : `particle ${held.particle}`);
    const where = token ? `token ${held.token}${prompt.name ? ` of ${prompt.name}` : ""}` : "";
    const head = element("div", "head");
    head.append(name, element("span", "quiet", where));
    this.numbers = element("p", "numbers");
    const rows = [head];
    if (part >= 0) rows.push(element("p", "", data.part_names[part]));
    else if (data.n_sums) rows.push(element("p", "", "The sum of the contributions so far"));
    if (particles.isCode && token) {
      const has =
        held.particle < 0
          ? "No particle attends most to this token"
          : "It attends most to this token";
      rows.push(element("p", "quiet", has));
    }
    rows.push(this.numbers);
    if (token) rows.push(...this.lensOf(held));
    this.held.replaceChildren(...rows.filter((row) => row.textContent || row === this.numbers));
  }

  lensOf(held) {
    if (!this.lens.given.length) {
      const reason = this.data.reasons.predictions;
      return [element("p", "quiet", `No predictions${reason ? `: ${reason}` : ""}.`)];
    }
    const list = element("div", "lens");
    this.data.frames.forEach((frame, f) => {
      const found = this.lens.at(held.prompt, f, held.token);
      const row = element("button", "row");
      row.append(
        element("span", "frame", frame),
        element("code", "what", found ? found.text : "–"),
        element("span", "share", found ? percent(found.probability) : ""),
      );
      row.title = `Show ${frame}`;
      row.onmousedown = (event) => event.preventDefault();
      row.onclick = () => this.goTo(f);
      this.lensRows.push(row);
      list.append(row);
    });
    this.list = list;
    this.roving.show(this.lensRows);
    return [element("h4", "", "Most probable next token, by the logit lens"), list];
  }

  updateHeld(frame, held) {
    if (!held) return;
    const { particles } = this;
    const at = frame * particles.n + held.particle;
    const parts = [];
    if (held.particle < 0) parts.push("");
    else if (held.particle >= particles.n - particles.nSums) {
      const all = particles.allOf(held.prompt, held.token).slice(0, -1);
      const n = all.filter((i) => particles.isThere(frame, i)).length;
      parts.push(`${n} of ${all.length} contributions written`);
    } else if (!particles.isThere(frame, held.particle)) parts.push("not written yet");
    else {
      if (known(particles.norms[at])) parts.push(`norm ${said(particles.norms[at])}`);
      if (known(particles.displacements[at]))
        parts.push(`moved ${said(particles.displacements[at])}`);
    }
    this.numbers.textContent = parts.join(" · ");
    this.lensRows.forEach((row, f) => row.classList.toggle("now", f === frame));
    const now = this.lensRows[frame];
    if (!now) return;
    this.roving.stay(now);
    const { list } = this;
    const [top, bottom] = [now.offsetTop, now.offsetTop + now.offsetHeight];
    if (top < list.scrollTop || bottom > list.scrollTop + list.clientHeight)
      list.scrollTop = Math.max(0, top - list.clientHeight / 2);
  }
}
