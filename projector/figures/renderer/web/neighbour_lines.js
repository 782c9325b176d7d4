// Lines from each point to its nearest, and their colours: near ones strong, far ones pale.

import { between } from "./colors.js";

const CLIPPED = 0.02; // Of all distances, the greatest: a few would take the whole scale.
const MOST_SORTED = 100_000;

const LIGHT = between([[20, 60, 120], [40, 130, 160], [150, 190, 170], [222, 210, 170]]);
const DARK = between([[255, 226, 138], [120, 190, 170], [70, 110, 150], [60, 66, 96]]);

export const lineColors = (dark) => (dark ? DARK : LIGHT);

// { k, ends, shades, low, high }: to where each line leads (−1 for nowhere), and the place of its
// distance between the least of all frames and a high one, as a byte. A line that two points have to
// each other is drawn once, or it would look stronger than others.
export const linesOf = ({ k, neighbours, distances }, nFrames, nPoints) => {
  const ends = neighbours.slice();
  const shades = new Uint8Array(ends.length);
  for (let at = 0; at < ends.length; at++)
    if (ends[at] < 0 || !Number.isFinite(distances[at])) ends[at] = -1;
  const [low, high] = scaleOf(distances, ends);
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

const scaleOf = (distances, ends) => {
  const step = Math.max(1, Math.ceil(ends.length / MOST_SORTED));
  const some = distances.filter((_, at) => at % step === 0 && ends[at] >= 0).sort();
  if (!some.length) return [0, 0];
  let low = some[0];
  for (let at = 0; at < ends.length; at++) if (ends[at] >= 0) low = Math.min(low, distances[at]);
  return [low, some[Math.min(some.length - 1, Math.floor(some.length * (1 - CLIPPED)))]];
};
