// Points that move from frame to frame, with lines to neighbours and partners, and trails: in four
// draw calls, all positions between frames found by the device. Without WebGL on a plain canvas.

import { placed } from "./camera.js";
import { isDark } from "./colors.js";
import { Device } from "./device.js";
import { LINE_FRAGMENT, LINE_VERTEX, STRENGTH, TRAIL_VERTEX } from "./line_program.js";
import { lineColors, linesOf } from "./neighbour_lines.js";
import { paintMoving } from "./plain_moving.js";
import { NOWHERE, POINT_FRAGMENT, POINT_VERTEX, pixels } from "./point_program.js";

const SIZE = 110; // Of a point without a size of its own, of 255.

const placedOf = (positions) => positions.map((x) => (Number.isFinite(x) ? x : NOWHERE));

export class Moving {
  constructor(canvas, redraw) {
    this.device = new Device(canvas, (device) => this.prepare(device), redraw);
    this.data = null;
    this.nCalls = 0; // Draw calls of the last paint.
    this.canvas = canvas;
    if (this.gl) return;
    this.pen = canvas.getContext("2d");
    if (this.pen) return;
    // It is of WebGL already, whose programs could not be made.
    this.canvas = canvas.cloneNode();
    canvas.replaceWith(this.canvas);
    this.pen = this.canvas.getContext("2d");
  }

  // Null without WebGL.
  get gl() {
    return this.device.gl;
  }

  prepare(device) {
    this.programs = {
      points: device.program(POINT_VERTEX, POINT_FRAGMENT),
      lines: device.program(LINE_VERTEX, LINE_FRAGMENT),
      trails: device.program(TRAIL_VERTEX, LINE_FRAGMENT),
    };
    // What was on a device that was lost is no more.
    this.on = null;
    return Object.values(this.programs).every(Boolean);
  }

  // `positions`: nFrames × nPoints × 3, NaN for none; `born`: the frame from which a point is there;
  // `lines`: for each frame and point its k nearest, −1 for none, their distances, and their scale, if
  // there is one; `pairs`: two points after the other that a line joins.
  show({ nFrames, nPoints, positions, born = null, lines = null, pairs = null }) {
    this.release();
    this.data = {
      nFrames,
      nPoints,
      positions,
      hasGaps: !positions.every(Number.isFinite),
      born: born || new Int16Array(nPoints),
      lines: lines && lines.k ? linesOf(lines, nFrames, nPoints) : null,
      pairs: pairs && pairs.length ? pairs : null,
      values: new Uint8Array(nPoints),
      palette: new Uint8Array(768).fill(128),
      sizes: new Uint8Array(nPoints).fill(SIZE),
      emphasis: new Uint8Array(nPoints).fill(255),
    };
  }

  // Places in a palette of 256 colours (3 bytes each): one a point, or one a frame and point.
  colors(values, palette) {
    this.device.forgetPalettes();
    Object.assign(this.data, { values, palette });
    this.forget("values");
  }

  // A byte a point.
  sizes(sizes) {
    this.data.sizes = sizes;
    this.forget("sizes");
  }

  // A byte a point: 0 for hidden, 255 for full, 254 for the colour of the choice.
  emphasis(bytes) {
    this.data.emphasis = bytes;
    this.forget("emphasis");
  }

  // What the colours of lines mean: { low, high, is_log, palette } of their distances, over all frames.
  lineScale(dark) {
    const { lines } = this.data;
    return lines && { ...lines.scale, palette: lineColors(dark) };
  }

  // Where a point is at a time in frames: [x, y, z], or null.
  positionOf(i, at) {
    const { nFrames, nPoints, positions, born } = this.data;
    if (at <= born[i] - 1) return null;
    const when = Math.min(Math.max(at, born[i]), nFrames - 1);
    const frame = Math.floor(when);
    const first = 3 * (frame * nPoints + i);
    const next = when > frame ? first + 3 * nPoints : first;
    const found = [0, 1, 2].map(
      (axis) =>
        positions[first + axis] +
        (positions[next + axis] - positions[first + axis]) * (when - frame),
    );
    return found.every(Number.isFinite) ? found : null;
  }

  // The same on the screen: { x, y, depth, near } in CSS pixels, or null; null for what is hidden.
  placeOf(i, at, box, matrix = box.matrix) {
    const found = this.data.emphasis[i] ? this.positionOf(i, at) : null;
    return found && placed({ ...box, matrix }, ...found);
  }

  // `at`: the time in frames; `box`: of the canvas, { left, width, height, isFlat } in CSS pixels;
  // `colors`: { page, mark } of the theme; `trails`: how many frames back they reach.
  paint({
    at,
    box,
    matrix = box.matrix,
    colors,
    ratio,
    zoom = 1,
    trails = 0,
    hasLines = true,
    hasPairs = true,
  }) {
    const { data, device, gl } = this;
    if (!data || (gl && gl.isContextLost())) return;
    const when = Math.max(0, Math.min(data.nFrames - 1, at));
    const frame = Math.floor(when);
    const scene = {
      at: when,
      frame,
      share: when - frame,
      box: { ...box, matrix },
      colors,
      ratio,
      trails,
      largest: pixels(data.nPoints, box, zoom),
      lines: hasLines ? data.lines : null,
      pairs: hasPairs ? data.pairs : null,
    };
    this.nCalls = 0;
    if (!gl) {
      paintMoving(this, scene);
      return;
    }
    device.clear();
    if (!data.nPoints) return;
    device.enter(box, ratio);
    this.fill();
    // Below the points, whatever is in front: what is read are the points.
    gl.disable(gl.DEPTH_TEST);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    if (scene.lines) this.paintLines(scene);
    if (scene.pairs) this.paintPairs(scene);
    if (trails > 0 && when > 0) this.paintTrails(scene);
    gl.disable(gl.BLEND);
    gl.enable(gl.DEPTH_TEST);
    gl.depthFunc(gl.LEQUAL);
    this.paintPoints(scene);
  }

  // Whatever is not on the device yet.
  fill() {
    const { data, device } = this;
    const on = (this.on ||= {});
    on.positions ||= device.buffer(placedOf(data.positions));
    on.values ||= device.buffer(data.values);
    on.sizes ||= device.buffer(data.sizes);
    on.emphasis ||= device.buffer(data.emphasis);
    on.born ||= device.buffer(Int16Array.from(data.born));
  }

  // The same as numbers that lines read by their place; only where there are lines.
  use(program, names) {
    const { data, device, gl } = this;
    const makers = {
      positions: () => device.numbers(placedOf(data.positions), 3, "FLOAT"),
      values: () => device.numbers(data.values, 1, "BYTE"),
      emphasis: () => device.numbers(data.emphasis, 1, "BYTE"),
      born: () => device.numbers(Int32Array.from(data.born), 1, "INT"),
      lineEnds: () => device.numbers(data.lines.ends, 1, "INT"),
      shades: () => device.numbers(data.lines.shades, 1, "BYTE"),
      pairEnds: () => device.numbers(data.pairs, 1, "INT"),
    };
    const textures = (this.on.textures ||= {});
    gl.useProgram(program.made);
    names.forEach((name, k) => {
      textures[name] ||= makers[name]();
      const place = name.endsWith("Ends") ? "u_ends" : `u_${name}`;
      device.bind(k + 1, textures[name], program.at(place));
    });
  }

  place(program, { at, box }) {
    this.gl.uniformMatrix4fv(program.at("u_project"), false, box.matrix);
    this.gl.uniform1i(program.at("u_n"), this.data.nPoints);
    this.gl.uniform1f(program.at("u_at"), at);
    this.gl.uniform1i(program.at("u_gaps"), this.data.hasGaps ? 1 : 0);
  }

  call(mode, n) {
    this.gl.drawArrays(mode, 0, n);
    this.nCalls += 1;
  }

  paintLines(scene) {
    const { data, device, gl } = this;
    const program = this.programs.lines;
    this.use(program, ["positions", "emphasis", "born", "lineEnds", "shades"]);
    this.place(program, scene);
    device.usePalette(lineColors(isDark(scene.colors.page)), program.at("u_palette"));
    gl.uniform1i(program.at("u_k"), data.lines.k);
    // Of the frame that is nearer in time: only what is no neighbour there changes at once.
    gl.uniform1i(program.at("u_frame"), Math.round(scene.at));
    gl.uniform1f(program.at("u_alpha"), STRENGTH.lines);
    this.call(gl.LINES, 2 * data.nPoints * data.lines.k);
  }

  paintPairs(scene) {
    const { data, device, gl } = this;
    const program = this.programs.lines;
    this.use(program, ["positions", "emphasis", "born", "pairEnds"]);
    this.place(program, scene);
    gl.uniform1i(program.at("u_k"), 0);
    gl.uniform1f(program.at("u_alpha"), STRENGTH.pairs);
    device.setColor(program.at("u_accent"), scene.colors.mark);
    this.call(gl.LINES, data.pairs.length);
  }

  paintTrails(scene) {
    const { data, device, gl } = this;
    const program = this.programs.trails;
    this.use(program, ["positions", "emphasis", "born", "values"]);
    this.place(program, scene);
    const nPieces = Math.ceil(scene.trails) + 1;
    device.usePalette(data.palette, program.at("u_palette"));
    gl.uniform1i(program.at("u_pieces"), nPieces);
    gl.uniform1f(program.at("u_reach"), scene.trails);
    gl.uniform1f(program.at("u_alpha"), STRENGTH.trails);
    gl.uniform1i(program.at("u_framed"), data.values.length > data.nPoints ? 1 : 0);
    this.call(gl.LINES, 2 * data.nPoints * nPieces);
  }

  paintPoints({ frame, share, box, colors, ratio, largest }) {
    const { data, device, gl, on } = this;
    const program = this.programs.points;
    const n = data.nPoints;
    gl.useProgram(program.made);
    const next = share > 0 ? frame + 1 : frame;
    const isFramed = data.values.length > n;
    device.attribute(program, "a_position", on.positions, 3, gl.FLOAT, 12 * n * frame);
    device.attribute(program, "a_next", on.positions, 3, gl.FLOAT, 12 * n * next);
    device.attribute(program, "a_value", on.values, 1, gl.UNSIGNED_BYTE, isFramed ? n * frame : 0);
    device.attribute(
      program,
      "a_value_next",
      on.values,
      1,
      gl.UNSIGNED_BYTE,
      isFramed ? n * next : 0,
    );
    device.attribute(program, "a_size", on.sizes, 1, gl.UNSIGNED_BYTE);
    device.attribute(program, "a_emphasis", on.emphasis, 1, gl.UNSIGNED_BYTE);
    device.attribute(program, "a_born", on.born, 1, gl.SHORT);
    gl.uniformMatrix4fv(program.at("u_project"), false, box.matrix);
    gl.uniform1f(program.at("u_frame"), frame);
    gl.uniform1f(program.at("u_share"), share);
    gl.uniform1f(program.at("u_signed"), 0);
    gl.uniform1f(program.at("u_perspective"), box.isFlat ? 0 : 1);
    gl.uniform1f(program.at("u_pixels"), largest * ratio);
    device.setColor(program.at("u_page"), colors.page);
    device.setColor(program.at("u_accent"), colors.mark);
    device.usePalette(data.palette, program.at("u_palette"));
    this.call(gl.POINTS, n);
    device.endAttributes();
  }

  // What changed is sent anew at the next paint.
  forget(name) {
    const { gl, on } = this;
    if (!gl || !on) return;
    if (on[name]) gl.deleteBuffer(on[name]);
    on[name] = null;
    if (!on.textures || !on.textures[name]) return;
    gl.deleteTexture(on.textures[name]);
    on.textures[name] = null;
  }

  release() {
    for (const name of Object.keys(this.on || {})) if (name !== "textures") this.forget(name);
    for (const name of Object.keys((this.on && this.on.textures) || {})) this.forget(name);
    this.on = null;
  }

  destroy() {
    this.release();
    this.device.forgetPalettes();
    this.device.destroy();
    this.data = null;
  }
}
