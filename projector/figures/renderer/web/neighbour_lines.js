// Lines from each point to its nearest, and their colours: near ones strong, far ones pale.

import { between } from "./colors.js";

const LIGHT = between([[20, 60, 120], [40, 130, 160], [150, 190, 170], [222, 210, 170]]);
const DARK = between([[255, 226, 138], [120, 190, 170], [70, 110, 150], [60, 66, 96]]);

export const lineColors = (dark) => (dark ? DARK : LIGHT);

const MOST_SHOWN = 0.98; // The share of distances below the end of the scale: a few may be very long.

// { k, ends, shades, low, high }: to where each line leads (−1 for nowhere), and the place of its
// distance between the least and almost the greatest of all frames, as a byte. A line that two points have
// to each other is drawn once, or it would look stronger than others.
export const linesOf = ({ k, neighbours, distances }, nFrames, nPoints) => {
  const ends = neighbours.slice();
  const shades = new Uint8Array(ends.length);
  let n = 0;
  const known = new Float32Array(ends.length);
  for (let at = 0; at < ends.length; at++) {
    if (ends[at] < 0 || !Number.isFinite(distances[at])) {
      ends[at] = -1;
      continue;
    }
    known[n++] = distances[at];
  }
  const sorted = known.subarray(0, n).sort();
  const [low, high] = n ? [sorted[0], sorted[Math.floor(MOST_SHOWN * (n - 1))]] : [0, 0];
  const scale = high > low ? 255 / (high - low) : 0;
  for (let frame = 0; frame < nFrames; frame++)
    for (let i = 0; i < nPoints; i++)
      for (let rank = 0; rank < k; rank++) {
        const at = (frame * nPoints + i) * k + rank;
        const other = ends[at];
        if (other < 0) continue;
        shades[at] = Math.min(255, Math.round((distances[at] - low) * scale));
        const first = (frame * nPoints + other) * k;
        if (other < i && neighbours.subarray(first, first + k).includes(i)) ends[at] = -1;
      }
  return { k, ends, shades, low, high };
};
