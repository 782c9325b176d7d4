// The picture of particles: where they are at a time between two frames, with names, floor and
// density.

import { paintAxes } from "./axes.js";
import { Camera } from "./camera.js";
import { Density } from "./density.js";
import { Following } from "./following.js";
import { edgesOf, paintEdges } from "./layer_edges.js";
import { nameOf, namedOf, paintNames } from "./layer_labels.js";
import { LayerStage } from "./layer_stage.js";
import { Moving } from "./moving.js";
import { pointAt } from "./picking.js";
import { pixels } from "./point_program.js";
import { bytes } from "./store.js";

const TRAIL = 2.5; // Frames.
const TOOLS = [104, 44]; // Of the corner where the buttons are.
const NOT_COMPARED = "motion between layers can’t be compared";

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
    const isCounted = bytes(data.is_counted, Uint8Array);
    // Of all particles, and of contributions without their sums.
    const [whole, parts] = [data, data.parts_view].map(
      (view) =>
        view && { middle: view.middle, reach: view.reach, following: new Following(view.followed) },
    );
    Object.assign(this, { data, particles, at: 0, views: { whole, parts: parts || whole } });
    this.density =
      data.density && new Density(particles, data.density, isCounted, data.prompts.length);
    this.edges = edgesOf(particles, data, isCounted);
    this.named = namedOf(particles, data);
    this.moving.show({
      nFrames: data.n_frames,
      nPoints: particles.n,
      positions: particles.positions,
      born: particles.born,
      lines: data.k
        ? {
            k: data.k,
            neighbours: particles.neighbours,
            distances: particles.distances,
            scale: data.scales.line,
          }
        : null,
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

  viewOf(on) {
    return on.sums ? this.views.whole : this.views.parts;
  }

  // Why motion in the picture is not that of the map, in lines; null where it is.
  notComparable(on) {
    if (on.density)
      return this.density.found.follows ? ["window follows particles:", NOT_COMPARED] : null;
    if (!on.follow) return null;
    const by = this.viewOf(on).following.magnifiedAt(this.at);
    if (by < 1.05) return ["scale changes with the layer:", NOT_COMPARED];
    return [`view magnified ${by < 9.95 ? by.toFixed(1) : by.toFixed(0)} times:`, NOT_COMPARED];
  }

  boxAt(at, on) {
    if (on.density) return this.density.boxAt(at);
    const view = this.viewOf(on);
    return on.follow ? view.following.boxAt(at) : view;
  }

  // Whether there was room.
  paint({ at, frame, on, held, pointed }) {
    const isMoving = on.follow || on.density;
    const camera = JSON.stringify(this.camera.state());
    const begun = this.stage.begin(
      `${camera} ${this.isFlat} ${on.density} ${on.sums} ${this.data.id} ${this.colors.text} ${isMoving ? at : ""}`,
    );
    if (!begun) return false;
    const { below, above, width, height, ratio } = begun;
    const { data, particles, colors } = this;
    this.at = at;
    const box = (this.box = { left: 0, width, height, isFlat: this.isFlat });
    const hasAxes = data.axes !== null;
    const { middle, reach } = this.boxAt(at, on);
    const seen = (this.seen = { middle, reach });
    this.matrix = box.matrix = this.camera.matrix(seen, box, hasAxes);
    if (on.density && below)
      this.density.paint(below, at, (x, y) => this.flatPlace(x, y), colors.page);
    if (hasAxes && below)
      paintAxes(below, seen, box, data.axes, colors.text, on.density ? colors.page : null);
    this.moving.paint({
      at,
      matrix: this.matrix,
      box,
      colors,
      ratio,
      zoom: this.camera.zoom,
      trails: on.trails ? TRAIL : 0,
      hasLines: on.lines,
      hasPairs: on.partners && particles.pairs.length > 0,
    });
    this.paintTexts(above, { frame, held, pointed, note: this.notComparable(on) });
    return true;
  }

  // The frame's name, what is to be known of its scale, rings around what is in hand and pointed at,
  // names where there is room.
  paintTexts(pen, { frame, held, pointed, note }) {
    const { colors, data, particles, box } = this;
    const write = (text, font, x, y) => {
      pen.font = font;
      // With a rim: what lies below may be as dark.
      Object.assign(pen, {
        strokeStyle: colors.page,
        lineWidth: 4,
        lineJoin: "round",
        fillStyle: colors.text,
      });
      pen.strokeText(text, x, y);
      pen.fillText(text, x, y);
      return pen.measureText(text).width;
    };
    const end = 14 + write(data.frames[frame], `600 17px ${colors.font}`, 14, 27);
    const taken = [{ x: 0, y: 0, width: end + 8, height: 38 }];
    if (note) {
      // Beside the name where there is room up to the buttons, else in two lines below it.
      const font = `13px ${colors.font}`;
      pen.font = font;
      const whole = note.join(" ");
      const isBeside = end + 14 + pen.measureText(whole).width < box.width - TOOLS[0];
      if (isBeside) taken[0].width = end + 22 + write(whole, font, end + 14, 26.5);
      else
        taken.push({
          x: 0,
          y: 36,
          height: 38,
          width: 22 + Math.max(...note.map((line, k) => write(line, font, 14, 48 + 17 * k))),
        });
    }
    const partner = held ? particles.partners.get(held.particle) : undefined;
    const rings = [
      [held ? held.particle : -1, 10],
      [partner === undefined ? -1 : partner, 8],
      [pointed, 9],
    ];
    for (const [i, radius] of rings) {
      const at = i >= 0 && this.placeOf(i);
      if (!at) continue;
      pen.strokeStyle = colors.mark;
      pen.lineWidth = 2.25;
      pen.beginPath();
      pen.arc(at.x, at.y, radius, 0, 7);
      pen.stroke();
    }
    const [wide, high] = TOOLS;
    const leaving = paintEdges(pen, {
      box,
      matrix: this.matrix,
      ids: this.edges,
      colors,
      positionOf: (i) => (this.moving.data.emphasis[i] ? this.moving.positionOf(i, this.at) : null),
      nameOf: (i) => nameOf(particles, data, i, false),
    });
    this.leaving = leaving.texts;
    this.names = paintNames(pen, {
      box,
      particles,
      data,
      named: this.named,
      held,
      colors,
      placeOf: (i) => this.placeOf(i),
      taken: [...taken, ...leaving.taken, { x: box.width - wide, y: 0, width: wide, height: high }],
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
    this.stage.destroy();
  }
}
