// Names on the map: of groups at their middles, of single neurons where there is room. None lies
// over another: the more important one stays, and coming nearer brings the others.

import { placed, placeOf } from "./camera.js";
import { nNeurons } from "./points.js";

const MOST_CHARACTERS = 26;
const AREA = 34_000; // Square pixels of a map for each group's name at first.
const NEAR_ENOUGH = 2.6; // The zoom from which single neurons are named.
const MOST_NEURONS = 60;
const LARGE = 34; // Pixels that half of a large group reaches, at least,
const MANY = 20; // and neurons that it has.
const PAD = { x: 7, y: 4 };

export const shorten = (text) =>
  text.length > MOST_CHARACTERS ? `${text.slice(0, MOST_CHARACTERS - 1)}…` : text;

const median = (values) => {
  values.sort((a, b) => a - b);
  return values[values.length >> 1];
};

// The neuron in the middle of each group, and how far half of the others are; null for none. A
// neuron, since the mean position of a scattered group may lie far from all of its members.
export const middlesOf = (positions, membership, nGroups) => {
  const members = Array.from({ length: nGroups }, () => []);
  for (let i = 0; i < membership.length; i++)
    if (membership[i] >= 0 && membership[i] < nGroups && Number.isFinite(positions[3 * i]))
      members[membership[i]].push(i);
  return members.map((each) => {
    if (!each.length) return null;
    const place = (i) => [positions[3 * i], positions[3 * i + 1], positions[3 * i + 2]];
    const apart = (a, b) => Math.hypot(...a.map((x, axis) => x - b[axis]));
    const middle = [0, 1, 2].map((axis) => median(each.map((i) => place(i)[axis])));
    const at = each.map(place).reduce((a, b) => (apart(b, middle) < apart(a, middle) ? b : a));
    return { at, spread: median(each.map((i) => apart(place(i), at))) };
  });
};

// Groups by what is named first: chosen, then distinct, then large.
export const ranked = (groups, chosen) => {
  const rank = (k) => (k === chosen ? 0 : groups[k].state === "weak" ? 2 : 1);
  return groups
    .map((_, k) => k)
    .sort((a, b) => rank(a) - rank(b) || groups[b].size - groups[a].size || a - b);
};

// How strongly the r-th name is seen: coming nearer fades the next ones in.
export const fade = (r, zoom, area) => {
  const room = (area / AREA) * Math.max(0.4, zoom) ** 1.3;
  return Math.max(0, Math.min(1, (room - r) / 2));
};

export class Labels {
  constructor(pen, colors) {
    this.pen = pen;
    this.colors = colors;
    this.taken = [];
    this.texts = [];
  }

  isFree(box, area) {
    if (area.x < box.left + 2 || area.y < 2) return false;
    if (area.x + area.width > box.left + box.width - 2 || area.y + area.height > box.height - 2)
      return false;
    return !this.taken.some(
      (o) =>
        area.x < o.x + o.width + 2 &&
        o.x < area.x + area.width + 2 &&
        area.y < o.y + o.height + 2 &&
        o.y < area.y + area.height + 2,
    );
  }

  take(area) {
    this.taken.push(area);
  }

  // At the first place of those that is free; whether there was one.
  put(box, text, at, { font, offsets, alpha = 1, rim = null, plain = false, dashed = false }) {
    const pen = this.pen;
    pen.font = font;
    const [width, height] = [pen.measureText(text).width + 2 * PAD.x, 13 + 2 * PAD.y];
    for (const [dx, dy] of offsets) {
      const area = { x: at.x + dx - width / 2, y: at.y + dy - height / 2, width, height };
      if (!this.isFree(box, area)) continue;
      this.take(area);
      this.texts.push(text);
      this.draw(text, area, alpha, rim, plain, dashed);
      return true;
    }
    return false;
  }

  draw(text, area, alpha, rim, plain, dashed) {
    const pen = this.pen;
    pen.save();
    pen.globalAlpha = alpha * (plain ? 0.62 : 0.86);
    pen.fillStyle = this.colors.page;
    pen.beginPath();
    pen.roundRect(area.x, area.y, area.width, area.height, area.height / 2);
    pen.fill();
    pen.globalAlpha = alpha;
    if (rim) {
      pen.strokeStyle = rim;
      pen.lineWidth = 1.5;
      if (dashed) pen.setLineDash([3, 3]);
      pen.stroke();
    }
    pen.fillStyle = this.colors.text;
    pen.textBaseline = "middle";
    pen.globalAlpha = alpha * (plain ? 0.85 : 1);
    pen.fillText(text, area.x + PAD.x, area.y + area.height / 2 + 0.5);
    pen.restore();
  }

  groups(panel, box, { chosen, zoom, colorOf }) {
    if (!panel.groups.length || !panel.middles) return;
    const scale = pixelsPerUnit(box, panel);
    let r = 0;
    for (const k of ranked(panel.groups, chosen)) {
      const group = panel.groups[k];
      const middle = panel.middles[k];
      const alpha = k === chosen ? 1 : fade(r, zoom, box.width * box.height);
      if (!alpha) break;
      const at = middle && placed(box, ...middle.at);
      if (!at) continue;
      // On a large group its name lies in the middle; beside a small one, which it would hide.
      const reach = middle.spread * scale * at.near;
      const away = reach > LARGE && group.size > MANY ? 0 : Math.min(reach, LARGE) + 17;
      const offsets = away
        ? [
            [0, -away],
            [0, away],
          ]
        : [
            [0, 0],
            [0, -22],
            [0, 22],
          ];
      const drawn = this.put(box, shorten(group.label), at, {
        font: `600 ${group.state === "weak" ? 11 : 12}px ${this.colors.font}`,
        offsets,
        alpha,
        rim: colorOf(group, k === chosen),
        dashed: group.state === "weak",
      });
      if (drawn) r += 1;
    }
  }

  // Of single neurons: those that are given, or all that are seen from near.
  neurons(panel, box, { zoom, among }) {
    const texts = panel.texts && panel.texts.labels;
    if (!texts && !among) return;
    const alpha = among ? 1 : Math.max(0, Math.min(1, zoom - NEAR_ENOUGH));
    if (!alpha || (!among && !box.isFlat)) return;
    let n = 0;
    for (const i of among || Array(nNeurons(panel)).keys()) {
      const said = (texts && texts[i]) || (among ? `N${i}` : "");
      if (!said || !panel.emphasis[i]) continue;
      const at = placeOf(panel, box, i);
      if (!at || at.x < box.left || at.x > box.left + box.width || at.y < 0 || at.y > box.height)
        continue;
      const drawn = this.put(box, shorten(said), at, {
        font: `11px ${this.colors.font}`,
        offsets: [
          [0, -16],
          [0, 16],
        ],
        alpha,
        plain: true,
      });
      if (drawn && ++n >= MOST_NEURONS) break;
    }
  }
}

// How many pixels a unit of the positions is, in the middle of the box.
const pixelsPerUnit = (box, panel) => {
  const [x, y, z] = panel.middle;
  const m = box.matrix;
  const w = m[3] * x + m[7] * y + m[11] * z + m[15];
  return (Math.hypot(m[0], m[4], m[8]) * box.width) / 2 / w;
};
