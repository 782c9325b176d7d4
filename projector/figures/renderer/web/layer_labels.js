// Names on the picture of particles: the one in hand first, then tokens where there is room.

import { Labels, shorten } from "./labels.js";

const MOST = 36;
const SAME_PLACE = 7; // Pixels: partners there have one name for both.
const OFFSETS = [
  [0, -17],
  [0, 17],
  [26, -12],
  [-26, -12],
];

// Spaces and line breaks around a token's text are in the list of tokens; here they would be in the
// way, and a token of nothing else has no name.
const trimmed = (name) => name.replace(/^[␣⏎⇥]+|[␣⏎⇥]+$/g, "");

// Particles that have a name, by importance: what two prompts don't share, then the last tokens.
export const namedOf = (particles, data) => {
  if (particles.isCode) return [];
  const from = data.particles === "contributions" ? particles.n - particles.nSums : 0;
  const own = [];
  for (let i = from; i < particles.n; i++) {
    const prompt = data.prompts[particles.prompt[i]];
    const token = prompt.tokens[particles.token[i]];
    if (token && trimmed(token.name)) own.push(i);
  }
  const isTwo = data.prompts.length > 1;
  const rank = (i) => {
    const { tokens } = data.prompts[particles.prompt[i]];
    if (particles.token[i] === tokens.length - 1) return 0;
    const { part } = tokens[particles.token[i]];
    return isTwo && (part === 1 || part === 2) ? 1 : 2;
  };
  return own
    .map((i) => [rank(i), i])
    .sort((a, b) => a[0] - b[0] || a[1] - b[1])
    .map(([, i]) => i);
};

export const nameOf = (particles, data, i, isShared) => {
  const prompt = data.prompts[particles.prompt[i]];
  const token = prompt && prompt.tokens[particles.token[i]];
  const text = token ? shorten(trimmed(token.name) || token.name) : `particle ${i}`;
  return prompt && prompt.name && token && !isShared ? `${prompt.name} ${text}` : text;
};

// `placeOf(i)` gives the pixels of a particle now, or null where it is not seen.
export const paintNames = (pen, { box, particles, data, named, held, placeOf, colors, taken }) => {
  const labels = new Labels(pen, colors);
  for (const area of taken) labels.take(area);
  const seen = new Map();
  const where = (i) => {
    if (!seen.has(i)) seen.set(i, placeOf(i));
    return seen.get(i);
  };
  const isShared = (i) => {
    const partner = particles.partners.get(i);
    if (partner === undefined) return false;
    const [a, b] = [where(i), where(partner)];
    return Boolean(a && b) && Math.hypot(a.x - b.x, a.y - b.y) < SAME_PLACE;
  };
  const done = new Set();
  const put = (i, style) => {
    const at = where(i);
    const shared = isShared(i);
    if (!at || done.has(i) || (shared && done.has(particles.partners.get(i)))) return;
    done.add(i);
    labels.put(box, nameOf(particles, data, i, shared), at, { offsets: OFFSETS, ...style });
  };
  const strong = { font: `600 13px ${colors.font}`, rim: colors.mark };
  if (held) {
    put(held.particle, strong);
    const partner = particles.partners.get(held.particle);
    if (partner !== undefined) put(partner, { ...strong, dashed: true });
  }
  for (const i of named) {
    if (labels.texts.length >= MOST) break;
    put(i, { font: `12px ${colors.font}`, plain: true });
  }
  return labels.texts;
};
