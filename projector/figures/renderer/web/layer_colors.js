// What particles are coloured by: bytes of a palette, whose scale is the same in all frames.

import { between } from "./colors.js";

// Index 0 of every palette is for what has no value.
const NO_VALUE = ["#a3a9b1", "#6d747d"];
const SCALES = {
  // The more, the further from the page: parts of cividis (Nuñez et al. 2018,
  // doi:10.1371/journal.pone.0199239).
  amount: [
    ["#d9c45c", "#b3a26d", "#8a8678", "#707173", "#575d6d", "#3b496c", "#123570", "#00224e"],
    ["#34456b", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369", "#e1cc55", "#fee838"],
  ],
  // From the first to the last, to be seen on white and on black.
  order: [
    ["#3b3fb6", "#0e7fc2", "#0c8a78", "#5f8a1c", "#b87400", "#cf4526", "#a3216f"],
    ["#8f93ff", "#3fb0f5", "#2ccfae", "#a8d14a", "#ffbf3f", "#ff8a66", "#ff7bc0"],
  ],
};
// No two are close for those who lack a receptor, either; each has a contrast of 3 to its page.
const CATEGORIES = [
  ["#0e94f8", "#e85203", "#3d9171", "#a23ea6", "#5d5303", "#3e41ee", "#5c010f", "#0b426c"],
  ["#1184fb", "#ff9119", "#12c98e", "#ee9ff4", "#feec5a", "#9d5bb0", "#b95803", "#85fefa"],
];

const parts = (color) => [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));

const blended = (stops, none) => {
  const table = between(stops.map(parts));
  table.set(parts(none));
  return table;
};

const listed = (dark) => {
  const table = new Uint8Array(768);
  for (let i = 0; i < 256; i++) table.set(parts(NO_VALUE[dark]), 3 * i);
  CATEGORIES[dark].forEach((color, i) => table.set(parts(color), 3 * (i + 1)));
  return table;
};

export const paletteOf = (name, isDark) => {
  const dark = Number(isDark);
  return name === "category" ? listed(dark) : blended(SCALES[name][dark], NO_VALUE[dark]);
};

// A number to read: three digits, a minus and no hyphen.
export const said = (value) => {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  const text =
    size >= 1e5 || (size && size < 1e-3)
      ? value.toExponential(1)
      : String(Number(value.toPrecision(3)));
  return text.replace(/-/g, "−");
};

// From 1 to 255 by the logarithm: lengths of states grow many times over from layer to layer.
const levels = (values, { low, high }) => {
  const [from, room] = [Math.log(low), Math.log(high / low)];
  return Uint8Array.from(values, (value) => {
    if (!(value >= 0)) return 0;
    const share = (Math.log(Math.max(value, 1e-30)) - from) / room;
    return 1 + Math.round(254 * Math.max(0, Math.min(1, share)));
  });
};

const amount = (name, label, values, scale, none) => ({
  palette: "amount",
  bytes: scale ? levels(values, scale) : new Uint8Array(values.length),
  legend: {
    label,
    ticks: scale
      ? [
          [0, `≤ ${said(scale.low)}`],
          [0.5, said(Math.sqrt(scale.low * scale.high))],
          [1, `≥ ${said(scale.high)}`],
        ]
      : [],
    none,
  },
});

const category = (label, names, numbers, note = "") => {
  const used = new Set(numbers);
  return {
    palette: "category",
    bytes: Uint8Array.from(numbers, (k) => k + 1),
    legend: {
      label,
      note,
      items: names.map((name, k) => [name, k + 1]).filter(([, k]) => used.has(k - 1)),
    },
  };
};

const tokenOf = (particles, prompts, i) => {
  const prompt = prompts[particles.prompt[i]];
  return prompt && prompt.tokens[particles.token[i]];
};

const BY = {
  token: {
    name: "token",
    make: ({ particles, data }) => ({
      palette: "order",
      bytes: Uint8Array.from({ length: particles.n }, (_, i) => {
        const token = tokenOf(particles, data.prompts, i);
        return token ? 1 + Math.round(254 * token.ramp) : 0;
      }),
      legend: {
        label: "position of the token",
        ticks: [
          [0, "token 0"],
          [1, data.prompts.length > 1 ? "last" : `token ${data.prompts[0].tokens.length - 1}`],
        ],
        none: data.particles === "autoencoder" ? "attends to no token most" : "",
      },
    }),
  },
  part: {
    name: "part of the prompt",
    make: ({ particles, data }) =>
      category(
        "part of the prompt",
        data.prompt_parts,
        Array.from({ length: particles.n }, (_, i) => {
          const token = tokenOf(particles, data.prompts, i);
          return token ? token.part : -1;
        }),
        data.prompts.length > 1
          ? "A alone and B alone: from the first differing token to the last, including tokens in between that are equal."
          : "",
      ),
  },
  kind: {
    name: "kind of part",
    // A token is none of them: it has no colour then.
    make: ({ particles, data }) => ({
      isOfParts: true,
      ...category(
        "kind of part",
        [...data.kinds, "sum of the contributions so far"],
        Array.from({ length: particles.n }, (_, i) =>
          particles.part[i] < 0 ? data.kinds.length : data.part_kinds[particles.part[i]],
        ),
      ),
    }),
  },
  norm: {
    name: "norm",
    make: ({ particles, data }) =>
      amount(
        "norm",
        "norm of the vector",
        particles.norms,
        data.scales.norm,
        data.n_sums ? "sums" : "",
      ),
  },
  moved: {
    name: "moves",
    make: ({ particles, data }) =>
      amount(
        "moved",
        "move from the frame before, in full space",
        particles.displacements,
        data.scales.displacement,
        "first frame",
      ),
  },
};

// The colourings that this data has, the one that tells most first.
export const coloringsOf = (data) => {
  const ids =
    data.particles === "contributions"
      ? ["kind", "token", "norm"]
      : data.prompts.length > 1
        ? ["part", "token", "norm", "moved"]
        : ["token", "norm", "part", "moved"];
  return ids.map((id) => ({ id, name: BY[id].name }));
};

// Bytes of all frames (F·N) or of all particles (N), their palette, and what the legend tells.
export const coloringOf = (id, particles, data) => BY[id].make({ particles, data });

// As CSS: the colour of a particle in a frame.
export const colorOf = (coloring, table, n, frame, i) => {
  const { bytes } = coloring;
  const k = 3 * bytes[bytes.length > n ? frame * n + i : i];
  return `rgb(${table[k]}, ${table[k + 1]}, ${table[k + 2]})`;
};
