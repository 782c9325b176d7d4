// What the colours of particles and lines mean, in numbers; the same in all frames.

import { element } from "./store.js";

const swatch = (table, index) =>
  `rgb(${table[3 * index]}, ${table[3 * index + 1]}, ${table[3 * index + 2]})`;

const dotted = (color, text) => {
  const item = element("span", "item");
  const dot = element("span", "dot");
  dot.style.background = color;
  item.append(dot, element("span", "", text));
  return item;
};

const barOf = (table, ticks) => {
  const made = element("span", "scale");
  const bar = element("span", "bar");
  const stops = [...Array(17).keys()].map((i) => swatch(table, Math.max(1, Math.min(255, i * 16))));
  bar.style.background = `linear-gradient(to right, ${stops.join(", ")})`;
  const numbers = element("span", "numbers");
  numbers.append(...ticks.map(([, text]) => element("span", "", text)));
  made.append(bar, numbers);
  return made;
};

// One legend: { label, items: [[text, index]] } or { label, ticks: [[share, text]], none }; `title` says
// more.
export const scaleRow = ({ label, items, ticks, none, title = "" }, table) => {
  const made = element("div", "legend");
  made.title = title;
  made.append(element("span", "name", label));
  if (items) made.append(...items.map(([text, index]) => dotted(swatch(table, index), text)));
  else if (ticks && ticks.length) made.append(barOf(table, ticks));
  if (none) made.append(dotted(swatch(table, 0), none));
  return made;
};
