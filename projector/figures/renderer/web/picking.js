// Which point is under the pointer, and which lie in a loop.

const NEAREST = 5; // Pixels around a small point that are still its own.

// Of n points the one at (x, y), or null. `placeOf(i)` tells where one is on the screen, null for
// nowhere or not to be picked; `largest` is the size of a point, in pixels.
export const pointAt = (n, placeOf, largest, x, y) => {
  let best = null;
  for (let i = 0; i < n; i++) {
    const at = placeOf(i);
    if (!at) continue;
    const apart = Math.hypot(at.x - x, at.y - y);
    const reach = Math.max(NEAREST, (largest * at.near) / 2);
    // Of those under the pointer the one in front; else the nearest.
    if (apart <= reach && (!best || at.depth - best.depth < (apart < best.apart ? 0.05 : -0.05)))
      best = { apart, depth: at.depth, i };
  }
  return best && best.i;
};

export const pointsIn = (loop, n, placeOf) => {
  const found = [];
  for (let i = 0; i < n; i++) {
    const at = placeOf(i);
    if (at && isWithin(loop, at.x, at.y)) found.push(i);
  }
  return found;
};

// Whether a point lies in a loop: how often a line from it to the right crosses it.
const isWithin = (loop, x, y) => {
  let within = false;
  for (let i = 0, j = loop.length - 1; i < loop.length; j = i++) {
    const [[ax, ay], [bx, by]] = [loop[i], loop[j]];
    if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) within = !within;
  }
  return within;
};
