// Which part of the plane the picture shows: places of one as places of the other.

import { singularValues } from "./geometry.js";

export class View {
  // `reach`: from the centre to each edge; `size`: of the picture in pixels.
  constructor(size, reach, centre = [0, 0]) {
    this.size = size;
    this.reach = reach;
    this.centre = centre;
  }

  resized(size) {
    return new View(size, this.reach, this.centre);
  }

  get pixels() {
    return this.size / 2 / this.reach; // Of a length of 1.
  }

  toScreen([x, y]) {
    const { size, reach, centre } = this;
    return [
      size / 2 + ((x - centre[0]) / reach) * (size / 2),
      size / 2 - ((y - centre[1]) / reach) * (size / 2),
    ];
  }

  // About the origin.
  placeOf(x, y) {
    const { size, reach } = this;
    return [((x - size / 2) * reach) / (size / 2), (-(y - size / 2) * reach) / (size / 2)];
  }
}

// Of a scene, so that before and after fit.
export function viewOf(scene, size) {
  if (scene.data.kind !== "skip") return new View(size, reachOf(scene));
  const points = [[0, 0], ...scene.arrows];
  const ends = [0, 1]
    .map((axis) => points.map((p) => p[axis]))
    .map((all) => [Math.min(...all), Math.max(...all)]);
  const reach = 0.62 * Math.max(...ends.map(([low, high]) => high - low));
  return new View(
    size,
    reach,
    ends.map(([low, high]) => (low + high) / 2),
  );
}

function reachOf(scene) {
  const points = [...scene.data.points_before, ...scene.pointsAfter.map((p) => scene.scaled(p))];
  const far = points.reduce((most, [x, y]) => Math.max(most, Math.abs(x), Math.abs(y)), 0);
  const least = scene.isToy ? 2.2 : 1.3;
  const stretched = scene.hasMatrix ? singularValues(scene.matrix)[0] * scene.factor : 1;
  return 1.12 * Math.max(least, stretched, Math.min(far, 7));
}
