// Colours as bytes, whichever way a style sheet names them.

import { element } from "./store.js";

const PROBED = new Map();
let probe = null;

export const rgb = (color) => {
  if (!PROBED.has(color)) {
    probe ||= element("canvas").getContext("2d", { willReadFrequently: true });
    probe.clearRect(0, 0, 1, 1);
    probe.fillStyle = color;
    probe.fillRect(0, 0, 1, 1);
    PROBED.set(color, [...probe.getImageData(0, 0, 1, 1).data].slice(0, 3));
  }
  return PROBED.get(color);
};

// Whether text is light on a dark page.
export const isDark = (color) => {
  const [r, g, b] = rgb(color);
  return 0.299 * r + 0.587 * g + 0.114 * b < 128;
};

// 256 colours between some that are given as [r, g, b], evenly apart.
export const between = (stops) => {
  const made = new Uint8Array(3 * 256);
  for (let i = 0; i < 256; i++) {
    const at = (i / 255) * (stops.length - 1);
    const k = Math.min(Math.floor(at), stops.length - 2);
    for (let part = 0; part < 3; part++)
      made[3 * i + part] = Math.round(
        stops[k][part] + (stops[k + 1][part] - stops[k][part]) * (at - k),
      );
  }
  return made;
};
