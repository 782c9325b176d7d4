// The graphics device behind one canvas: programs, palettes and numbers as textures. The browser may
// take it away and give it back; then all that was on it is made again.

import { rgb } from "./colors.js";

const WIDTH = 2048; // Of a texture of numbers, texels: every device has as many.
const SPARE_UNIT = 15;

export class Device {
  // `prepare(device)` makes programs, and says whether they could be made. Without WebGL 2, or where
  // they could not, `gl` is null.
  constructor(canvas, prepare, redraw) {
    this.canvas = canvas;
    this.palettes = new Map(); // bytes of a palette → texture
    this.given = []; // Places of attributes that have a buffer.
    this.gl = canvas.getContext("webgl2", { antialias: false, alpha: true });
    if (this.gl && !prepare(this)) this.gl = null;
    this.lost = (event) => event.preventDefault();
    this.restored = () => {
      this.palettes.clear();
      if (prepare(this)) redraw();
    };
    canvas.addEventListener("webglcontextlost", this.lost);
    canvas.addEventListener("webglcontextrestored", this.restored);
  }

  // A program, with its places by name; null where it can't be made.
  program(vertex, fragment) {
    const gl = this.gl;
    const made = gl.createProgram();
    for (const [kind, source] of [
      [gl.VERTEX_SHADER, vertex],
      [gl.FRAGMENT_SHADER, fragment],
    ]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(made, shader);
    }
    gl.linkProgram(made);
    if (!gl.getProgramParameter(made, gl.LINK_STATUS)) return null;
    const places = new Map();
    const at = (name) => {
      if (!places.has(name)) places.set(name, gl.getUniformLocation(made, name));
      return places.get(name);
    };
    return { made, at };
  }

  clear() {
    const gl = this.gl;
    gl.viewport(0, 0, this.canvas.width, this.canvas.height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
  }

  // What is drawn next lies in a box, which is given in CSS pixels.
  enter(box, ratio) {
    this.gl.viewport(box.left * ratio, 0, box.width * ratio, box.height * ratio);
  }

  setColor(place, color) {
    this.gl.uniform3f(place, ...rgb(color).map((part) => part / 255));
  }

  // The attribute `name` of a program, from a buffer; `offset` in bytes.
  attribute({ made }, name, buffer, size, type, offset = 0) {
    const gl = this.gl;
    const place = gl.getAttribLocation(made, name);
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.enableVertexAttribArray(place);
    this.given.push(place);
    gl.vertexAttribPointer(place, size, type, false, 0, offset);
  }

  // What is drawn next may read none: then a buffer that was deleted must not be asked for.
  endAttributes() {
    for (const place of this.given) this.gl.disableVertexAttribArray(place);
    this.given = [];
  }

  buffer(values) {
    const gl = this.gl;
    const made = gl.createBuffer();
    gl.bindBuffer(gl.ARRAY_BUFFER, made);
    gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW);
    return made;
  }

  // Numbers that a program reads by their place, `size` at a time: i stands at
  // (i % WIDTH, i / WIDTH). `kind` is one of "FLOAT", "INT" and "BYTE".
  numbers(values, size, kind) {
    const gl = this.gl;
    const [inside, format, type] = {
      FLOAT: [gl.RGB32F, gl.RGB, gl.FLOAT],
      INT: [gl.R32I, gl.RED_INTEGER, gl.INT],
      BYTE: [gl.R8, gl.RED, gl.UNSIGNED_BYTE],
    }[kind];
    const height = Math.max(1, Math.ceil(values.length / size / WIDTH));
    const padded = new values.constructor(WIDTH * height * size);
    padded.set(values);
    return this.texture(inside, WIDTH, height, format, type, padded);
  }

  texture(inside, width, height, format, type, values) {
    const gl = this.gl;
    const made = gl.createTexture();
    // Filled in a unit that no program reads: those that are in use stay as they are bound.
    gl.activeTexture(gl.TEXTURE0 + SPARE_UNIT);
    gl.bindTexture(gl.TEXTURE_2D, made);
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    gl.texImage2D(gl.TEXTURE_2D, 0, inside, width, height, 0, format, type, values);
    for (const side of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER])
      gl.texParameteri(gl.TEXTURE_2D, side, gl.NEAREST);
    return made;
  }

  bind(unit, texture, place) {
    const gl = this.gl;
    gl.activeTexture(gl.TEXTURE0 + unit);
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.uniform1i(place, unit);
  }

  // A palette of 256 colours in unit 0, where programs look for it.
  usePalette(palette, place) {
    const gl = this.gl;
    if (!this.palettes.has(palette))
      this.palettes.set(palette, this.texture(gl.RGB8, 256, 1, gl.RGB, gl.UNSIGNED_BYTE, palette));
    this.bind(0, this.palettes.get(palette), place);
  }

  forgetPalettes() {
    if (!this.gl) return;
    for (const texture of this.palettes.values()) this.gl.deleteTexture(texture);
    this.palettes.clear();
  }

  // Browsers keep few contexts: give this one back now, and its memory.
  destroy() {
    this.canvas.removeEventListener("webglcontextlost", this.lost);
    this.canvas.removeEventListener("webglcontextrestored", this.restored);
    const lose = this.gl && this.gl.getExtension("WEBGL_lose_context");
    if (lose) lose.loseContext();
  }
}

// What programs that read numbers by their place begin with.
export const NUMBERS = `#version 300 es
precision highp float;
precision highp int;
precision highp isampler2D;
precision highp sampler2D;
ivec2 spot(int i) { return ivec2(i % ${WIDTH}, i / ${WIDTH}); }
`;
