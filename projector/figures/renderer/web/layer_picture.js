// The picture of particles: where they are at a time between two frames, with names, floor and
// density.

import { paintAxes } from "./axes.js";
import { Camera } from "./camera.js";
import { Density } from "./density.js";
import { namedOf, paintNames } from "./layer_labels.js";
import { LayerStage } from "./layer_stage.js";
import { Moving } from "./moving.js";
import { pointAt } from "./picking.js";
import { pixels } from "./point_program.js";

const TRAIL = 2.5; // Frames.
// Of the corners where the frame's name and the buttons are.
const CORNERS = { name: [130, 38], tools: [104, 44] };

// The middle and half sides of what is seen between two frames; sizes grow by a factor, not a step.
const boxAtTime = ({ middle, reach }, at) => {
  const from = Math.floor(at);
  const to = Math.min(from + 1, middle.length - 1);
  const share = at - from;
  return {
    middle: middle[from].map((x, axis) => x + share * (middle[to][axis] - x)),
    reach: reach[from].map((x, axis) => x * (reach[to][axis] / x) ** share),
  };
};

export class LayerPicture {
  constructor({ redraw, resetCamera, savePicture }) {
    this.stage = new LayerStage({ resetCamera, savePicture });
    this.camera = new Camera();
    this.moving = new Moving(this.stage.middle, redraw);
    this.stage.middle = this.moving.canvas; // Another one, where there is no WebGL.
    this.box = { left: 0, width: 1, height: 1, isFlat: false };
    this.at = 0;
    this.names = [];
  }

  show(data, particles) {
    Object.assign(this, { data, particles, density: null, at: 0 });
    this.named = namedOf(particles, data);
    this.moving.show({
      nFrames: data.n_frames,
      nPoints: particles.n,
      positions: particles.positions,
      born: particles.born,
      lines: data.k
        ? { k: data.k, neighbours: particles.neighbours, distances: particles.distances } : null,
      pairs: particles.pairs.length ? particles.pairs : null,
    });
  }

  // Flat, or in depth: each is left where the user moved it.
  useCamera(isFlat) {
    this.isFlat = isFlat;
    const key = `${this.data.key || "layer-time"}${isFlat ? " flat" : ""}`;
    this.camera.show(key, this.data.id, isFlat ? 2 : 3);
  }

  readTheme() {
    this.colors = this.stage.colors();
    return this.colors;
  }

  // Whether there was room. `table` is the palette of amounts.
  paint({ at, frame, on, held, pointed, table }) {
    const isMoving = on.follow || on.density;
    const camera = JSON.stringify(this.camera.state());
    const begun = this.stage.begin(`${camera} ${this.isFlat} ${on.density} ${this.data.id} ${this.colors.text} ${isMoving ? at : ""}`);
    if (!begun) return false;
    const { below, above, width, height, ratio } = begun;
    const { data, particles, colors } = this;
    this.at = at;
    const box = (this.box = { left: 0, width, height, isFlat: this.isFlat });
    const hasAxes = data.axes !== null;
    const seen = on.follow ? boxAtTime(data.frame_boxes, at) : data;
    this.matrix = box.matrix = this.camera.matrix(seen, box, hasAxes);
    if (on.density && below) {
      this.density ||= new Density(particles, data.middle, data.reach);
      this.density.paint(below, at, (x, y) => this.flatPlace(x, y), table);
    }
    if (hasAxes && below) paintAxes(below, seen, box, data.axes, colors.text);
    this.moving.paint({
      at, matrix: this.matrix, box, colors, ratio, zoom: this.camera.zoom,
      trails: on.trails ? TRAIL : 0,
      hasLines: on.lines,
      hasPairs: on.partners && particles.pairs.length > 0,
    });
    this.paintTexts(above, { frame, held, pointed });
    return true;
  }

  // The frame's name, rings around what is in hand and pointed at, names where there is room.
  paintTexts(pen, { frame, held, pointed }) {
    const { colors, data, particles, box } = this;
    pen.fillStyle = colors.text;
    pen.font = `600 17px ${colors.font}`;
    pen.fillText(data.frames[frame], 14, 27);
    const partner = held ? particles.partners.get(held.particle) : undefined;
    const rings = [[held ? held.particle : -1, 10], [partner === undefined ? -1 : partner, 8], [pointed, 9]];
    for (const [i, radius] of rings) {
      const at = i >= 0 && this.placeOf(i);
      if (!at) continue;
      pen.strokeStyle = colors.mark;
      pen.lineWidth = 2.25;
      pen.beginPath();
      pen.arc(at.x, at.y, radius, 0, 7);
      pen.stroke();
    }
    const [wide, high] = CORNERS.tools;
    this.names = paintNames(pen, {
      box, particles, data, named: this.named, held, colors,
      placeOf: (i) => this.placeOf(i),
      taken: [
        { x: 0, y: 0, width: CORNERS.name[0], height: CORNERS.name[1] },
        { x: box.width - wide, y: 0, width: wide, height: high },
      ],
    });
  }

  // Pixels of a particle now; null where it is not seen.
  placeOf(i) {
    return this.moving.placeOf(i, this.at, this.box, this.matrix);
  }

  // Pixels of a place of the flat map.
  flatPlace(x, y) {
    const { matrix: m, box } = this;
    const across = m[0] * x + m[4] * y + m[12];
    const up = m[1] * x + m[5] * y + m[13];
    return [((across + 1) / 2) * box.width, ((1 - up) / 2) * box.height];
  }

  // The particle at a place, or null.
  find(x, y) {
    const { n } = this.particles;
    return pointAt(n, (i) => this.placeOf(i), 2 * pixels(n, this.box, this.camera.zoom), x, y);
  }

  save(name) {
    this.stage.save(name);
  }

  destroy() {
    this.moving.destroy();
  }
}
