// Where the eye is: the user alone moves it. Every map opens centred and scaled to itself.

const FIELD = 0.45; // The field of view across the shorter side, radians.
export const AWAY = 7; // Distance of the eye at zoom 1, in half widths of the frame.
const MARGIN = 30; // Around a flat map, pixels; where there are ticks, the double.
const CAMERAS = new Map(); // key of a map → how it was turned, and where each map was left.

const start = (dim) => ({ zoom: 1, x: 0, y: dim < 3 ? 0 : 0.16 });

// 4 × 4 matrices, column by column as WebGL has them.
const multiply = (a, b) => {
  const out = new Float32Array(16);
  for (let column = 0; column < 4; column++)
    for (let row = 0; row < 4; row++) {
      let sum = 0;
      for (let k = 0; k < 4; k++) sum += a[k * 4 + row] * b[column * 4 + k];
      out[column * 4 + row] = sum;
    }
  return out;
};

// The same of what lies about another middle than 0.
const about = ([x, y, z], matrix) =>
  multiply(matrix, new Float32Array([1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, -x, -y, -z, 1]));

const flat = (camera, box, reach, hasAxes) => {
  const margin = hasAxes ? 2 * MARGIN : MARGIN;
  const room = [box.width, box.height].map((length) => Math.max(length / 2 - margin, 20));
  const scale =
    camera.zoom * Math.min(room[0] / (reach[0] || 1e-9), room[1] / (reach[1] || 1e-9), 1e9);
  const aspect = box.width / box.height;
  // prettier-ignore
  return new Float32Array([
    (2 * scale) / box.width, 0, 0, 0,
    0, (2 * scale) / box.height, 0, 0,
    0, 0, 1e-6, 0,
    camera.x / aspect, camera.y, 0, 1,
  ]);
};

const deep = (camera, box, reach) => {
  const aspect = box.width / box.height;
  const scale = 1 / (Math.max(...reach) || 1);
  const [cy, sy] = [Math.cos(camera.yaw), Math.sin(camera.yaw)];
  const [cp, sp] = [Math.cos(camera.pitch), Math.sin(camera.pitch)];
  const away = AWAY / camera.zoom;
  // Turn about the vertical axis, then tilt, then step back.
  // prettier-ignore
  const view = new Float32Array([
    cy * scale, sy * sp * scale, sy * cp * scale, 0,
    0, cp * scale, -sp * scale, 0,
    -sy * scale, cy * sp * scale, cy * cp * scale, 0,
    camera.x, camera.y, -away, 1,
  ]);
  const f = 1 / Math.tan(FIELD / 2);
  const [near, far] = [0.02, 40];
  // prettier-ignore
  const lens = new Float32Array([
    f / Math.max(aspect, 1), 0, 0, 0,
    0, f * Math.min(aspect, 1), 0, 0,
    0, 0, (far + near) / (near - far), -1,
    0, 0, (2 * far * near) / (near - far), 0,
  ]);
  return multiply(lens, view);
};

export class Camera {
  constructor() {
    this.dim = 3;
    this.turned = { yaw: 0.65, pitch: -0.4 };
    this.place = start(3);
  }

  // `key` is of the place on the page: how it was turned stays there. `maps` names what is shown:
  // what was not shown there yet is seen whole.
  show(key, maps, dim) {
    this.dim = dim;
    if (!CAMERAS.has(key)) CAMERAS.set(key, { turned: this.turned, places: new Map() });
    const { turned, places } = CAMERAS.get(key);
    if (!places.has(maps)) places.set(maps, start(dim));
    this.turned = turned;
    this.place = places.get(maps);
  }

  get yaw() {
    return this.turned.yaw;
  }
  get pitch() {
    return this.turned.pitch;
  }
  get zoom() {
    return this.place.zoom;
  }
  get x() {
    return this.place.x;
  }
  get y() {
    return this.place.y;
  }

  state() {
    return { ...this.turned, ...this.place };
  }

  matrix(panel, box, hasAxes) {
    const made =
      this.dim < 3 ? flat(this, box, panel.reach, hasAxes) : deep(this, box, panel.reach);
    return about(panel.middle, made);
  }

  // By pixels. What is flat is moved: turned it would look the same.
  turn(dx, dy, height, pan) {
    if (pan || this.dim < 3) {
      const reach = this.dim < 3 ? 2 : 2.66 / this.zoom;
      this.place.x += (dx / height) * reach;
      this.place.y -= (dy / height) * reach;
    } else {
      // What is in front follows the pointer.
      this.turned.yaw -= dx * 0.008;
      this.turned.pitch = Math.max(-1.55, Math.min(1.55, this.pitch - dy * 0.008));
    }
  }

  // `at`: what stays where it is on a flat map, from the middle of its box in half heights.
  zoomBy(factor, at = { x: 0, y: 0 }) {
    const before = this.zoom;
    this.place.zoom = Math.max(0.3, Math.min(60, before * factor));
    if (this.dim > 2) return;
    const share = this.zoom / before;
    this.place.x = at.x - (at.x - this.x) * share;
    this.place.y = at.y - (at.y - this.y) * share;
  }

  reset() {
    Object.assign(this.turned, { yaw: 0.65, pitch: -0.4 });
    Object.assign(this.place, start(this.dim));
  }
}

// Where a point stands on the screen, in CSS pixels; null for nowhere.
export const placed = (box, x, y, z) => {
  const m = box.matrix;
  const w = m[3] * x + m[7] * y + m[11] * z + m[15];
  if (!(w > 0.01)) return null;
  const across = (m[0] * x + m[4] * y + m[8] * z + m[12]) / w;
  const up = (m[1] * x + m[5] * y + m[9] * z + m[13]) / w;
  if (!Number.isFinite(across + up)) return null;
  return {
    x: box.left + ((across + 1) / 2) * box.width,
    y: ((1 - up) / 2) * box.height,
    depth: w,
    near: box.isFlat ? 1 : Math.max(0.35, Math.min(3, AWAY / w)),
  };
};

export const placeOf = (panel, box, i) => {
  const p = panel.positions;
  return placed(box, p[3 * i], p[3 * i + 1], p[3 * i + 2]);
};
