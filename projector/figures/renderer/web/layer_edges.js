// Marks at the edge of the picture: outliers and sums that lie outside of what is seen.

import { shorten } from "./labels.js";

const INSIDE = 12; // Pixels from the edge; at the top the frame's name is.
const TOP = 46;
const SAME_EXIT = 26; // Pixels: what leaves there has one mark.

// Particles that have a mark where they are not seen: of contributions the sums, else outliers.
export const edgesOf = (particles, data, isCounted) => {
  const from = data.particles === "contributions" ? particles.n - particles.nSums : 0;
  const own = [];
  for (let i = from; i < particles.n; i++) if (!isCounted[i]) own.push(i);
  return own;
};

// Where the way from the middle to a place leaves the picture: { x, y, angle }; null for what is seen.
export const edgeOf = (box, m, [x, y, z]) => {
  const across = m[0] * x + m[4] * y + m[8] * z + m[12];
  const up = m[1] * x + m[5] * y + m[9] * z + m[13];
  const w = m[3] * x + m[7] * y + m[11] * z + m[15];
  if (!Number.isFinite(across + up + w)) return null;
  if (w > 0.01 && Math.abs(across) <= w && Math.abs(up) <= w) return null;
  // Of what is behind the eye the way there counts.
  const [dx, dy] = [(across * box.width) / 2, (-up * box.height) / 2];
  const room = dx > 0 ? box.width / 2 - INSIDE : INSIDE - box.width / 2;
  const high = dy > 0 ? box.height / 2 - INSIDE : TOP - box.height / 2;
  const share = Math.min(dx ? room / dx : Infinity, dy ? high / dy : Infinity);
  if (!Number.isFinite(share)) return null;
  return {
    x: box.width / 2 + share * dx,
    y: box.height / 2 + share * dy,
    angle: Math.atan2(dy, dx),
  };
};

const meets = (a, b) =>
  a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height && b.y < a.y + a.height;

// `positionOf(i)` gives where a particle is, or null; `nameOf(i)` its name. What the marks take, and
// their texts.
export const paintEdges = (pen, { box, matrix, ids, positionOf, nameOf, colors }) => {
  const marks = [];
  for (const i of ids) {
    const position = positionOf(i);
    const at = position && edgeOf(box, matrix, position);
    if (!at) continue;
    const near = marks.find((each) => Math.hypot(each.x - at.x, each.y - at.y) < SAME_EXIT);
    if (near) near.ids.push(i);
    else marks.push({ ...at, ids: [i] });
  }
  pen.font = `12px ${colors.font}`;
  const taken = marks.map(({ x, y }) => ({ x: x - 8, y: y - 8, width: 16, height: 16 }));
  const texts = marks.map(({ x, y, angle, ids: own }) => {
    pen.save();
    pen.translate(x, y);
    pen.rotate(angle);
    pen.beginPath();
    pen.moveTo(8, 0);
    pen.lineTo(-4, -6);
    pen.lineTo(-4, 6);
    pen.closePath();
    Object.assign(pen, {
      fillStyle: colors.text,
      strokeStyle: colors.page,
      lineWidth: 3,
      lineJoin: "round",
    });
    pen.stroke();
    pen.fill();
    pen.restore();
    const text = shorten(nameOf(own[0])) + (own.length > 1 ? ` +${own.length - 1}` : "");
    const width = pen.measureText(text).width;
    const isRight = x > box.width / 2;
    const left = isRight ? x - 12 - width : x + 12;
    const area = { x: left, y: y - 8, width, height: 16, text };
    // Below or, in the lower half, above what is there already.
    while (taken.some((other) => meets(area, other))) area.y += y < box.height / 2 ? 17 : -17;
    taken.push(area);
    Object.assign(pen, {
      strokeStyle: colors.page,
      lineWidth: 4,
      lineJoin: "round",
      fillStyle: colors.text,
    });
    pen.strokeText(text, left, area.y + 12);
    pen.fillText(text, left, area.y + 12);
    return text;
  });
  return { taken, texts };
};
