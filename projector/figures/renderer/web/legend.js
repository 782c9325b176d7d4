// What colours and sizes mean: one row below each map that has its own, or one for all.

import { element } from "./store.js";

export const legendRows = (data, panels, palettes) => {
  const shared = data.legend ? [[data.legend, null]] : [];
  const own = panels.map((panel) => [panel.legend, panel.palette]);
  const rows = (shared.length ? shared : own).filter(([legend]) => legend);
  return rows.map(([legend, palette]) => legendOf(legend, palette || palettes(legend.signed)));
};

const legendOf = (legend, palette) => {
  const color = (i) => `rgb(${palette[3 * i]},${palette[3 * i + 1]},${palette[3 * i + 2]})`;
  const made = element("div", "legend");
  if (legend.label) made.append(element("span", "name", legend.label));
  if (legend.items) {
    for (const [text, index] of legend.items) {
      const item = element("span", "item");
      if (index !== null) {
        const dot = element("span", "dot");
        dot.style.background = color(index);
        item.append(dot);
      }
      item.append(element("span", "", text));
      made.append(item);
    }
  } else {
    const bar = element("span", "bar");
    const stops = [...Array(17).keys()].map((i) => color(Math.min(255, i * 16)));
    bar.style.background = `linear-gradient(to right, ${stops.join(", ")})`;
    made.append(element("span", "", legend.low), bar, element("span", "", legend.high));
  }
  if (legend.size) made.append(threePoints(legend.size));
  return made;
};

// Three points, from small to large, and what the size is of.
const threePoints = (text) => {
  const made = element("span", "item size");
  for (const width of [5, 8, 12]) {
    const dot = element("span", "dot");
    Object.assign(dot.style, { width: `${width}px`, height: `${width}px` });
    made.append(dot);
  }
  made.append(element("span", "", text));
  return made;
};
