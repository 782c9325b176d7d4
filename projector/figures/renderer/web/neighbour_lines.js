// Lines from each point to its nearest, and their colours: near ones strong, far ones pale.

import { between } from "./colors.js";

const LIGHT = between([
  [20, 60, 120],
  [40, 130, 160],
  [150, 190, 170],
  [222, 210, 170],
]);
const DARK = between([
  [255, 226, 138],
  [120, 190, 170],
  [70, 110, 150],
  [60, 66, 96],
]);

export const lineColors = (dark) => (dark ? DARK : LIGHT);

const MOST_SHOWN = 0.98; // The share of distances below the end of a scale of its own.

// { k, ends, shades, scale }: to where each line leads (−1 for nowhere), and the place of its distance
// on the scale { low, high, is_log }, as a byte: the same in all frames. A line that two points have to
// each other is drawn once, or it would look stronger than others.
export const linesOf = ({ k, neighbours, distances, scale = null }, nFrames, nPoints) => {
  const ends = neighbours.slice();
  const shades = new Uint8Array(ends.length);
  for (let at = 0; at < ends.length; at++)
    if (ends[at] >= 0 && !Number.isFinite(distances[at])) ends[at] = -1;
  const own = scale || scaleOf(distances.filter((_, at) => ends[at] >= 0));
  const share = shareOn(own);
  for (let frame = 0; frame < nFrames; frame++)
    for (let i = 0; i < nPoints; i++)
      for (let rank = 0; rank < k; rank++) {
        const at = (frame * nPoints + i) * k + rank;
        const other = ends[at];
        if (other < 0) continue;
        shades[at] = Math.round(255 * share(distances[at]));
        const first = (frame * nPoints + other) * k;
        if (other < i && neighbours.subarray(first, first + k).includes(i)) ends[at] = -1;
      }
  return { k, ends, shades, scale: own };
};

// From the least to almost the greatest: a few may be very long.
const scaleOf = (distances) => {
  const sorted = distances.sort();
  const last = Math.max(0, Math.floor(MOST_SHOWN * (sorted.length - 1)));
  return { low: sorted[0] || 0, high: sorted[last] || 0, is_log: false };
};

// Where a distance is on a scale, from 0 to 1.
const shareOn = ({ low, high, is_log: isLog }) => {
  if (!(high > low)) return () => 0;
  const from = isLog ? Math.log(low) : low;
  const room = (isLog ? Math.log(high) : high) - from;
  return (distance) => {
    const value = isLog ? Math.log(Math.max(distance, low)) : distance;
    return Math.max(0, Math.min(1, (value - from) / room));
  };
};
