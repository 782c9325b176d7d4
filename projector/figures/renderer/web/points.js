// Neurons as points, by WebGL; where there is none, on a plain canvas.

import { AWAY, placeOf } from "./camera.js";
import { element } from "./store.js";
import { ACCENT } from "./emphasis.js";

const VERTEX = `#version 300 es
in vec3 a_position;
in float a_value;
in float a_size;
in float a_emphasis;
uniform mat4 u_project;
uniform float u_signed;
uniform float u_pixels;
uniform float u_perspective;
uniform vec3 u_accent;
uniform sampler2D u_palette;
out vec3 v_color;
out float v_emphasis;
void main() {
  gl_Position = u_project * vec4(a_position, 1.0);
  float shade = u_signed > 0.5 ? a_value + 128.0 : a_value;
  float size = u_signed > 0.5 ? sqrt(abs(a_value) / 127.0) : a_size / 255.0;
  v_color = texelFetch(u_palette, ivec2(int(clamp(shade, 0.0, 255.0)), 0), 0).rgb;
  v_emphasis = a_emphasis / 255.0;
  if (a_emphasis == ${ACCENT}.0) v_color = u_accent;
  float near = u_perspective > 0.5 ? ${AWAY.toFixed(1)} / gl_Position.w : 1.0;
  gl_PointSize = u_pixels * (0.28 + size) * clamp(near, 0.35, 3.0) * (0.75 + 0.25 * v_emphasis);
  // On flat maps what is pale lies below; what is hidden is outside of everything.
  if (u_perspective < 0.5) gl_Position.z = -0.9 * v_emphasis * gl_Position.w;
  if (a_emphasis == 0.0) gl_Position = vec4(9.0, 9.0, 9.0, 1.0);
}`;

const FRAGMENT = `#version 300 es
precision mediump float;
in vec3 v_color;
in float v_emphasis;
uniform vec3 u_page;
out vec4 color;
void main() {
  float r = length(gl_PointCoord - 0.5) * 2.0;
  if (r > 1.0) discard;
  // A rim in the colour of the page separates points that overlap.
  float soft = fwidth(r);
  float rim = 0.65 * smoothstep(0.8 - soft, 0.8 + soft, r);
  color = vec4(mix(u_page, v_color, v_emphasis * (1.0 - rim)), 1.0);
}`;

const ATTRIBUTES = ["positions", "values", "sizes", "emphasis"];

export const nNeurons = (panel) => (panel.positions ? panel.positions.length / 3 : 0);

// Values of the token that is shown, or of all.
export const valuesAt = (panel, token) => {
  if (!panel.frames) return panel.values;
  const n = nNeurons(panel);
  const at = Math.min(token, panel.frames - 1);
  return panel.values.subarray(at * n, (at + 1) * n);
};

// Of the largest point: smaller where there are many.
export const pixels = (n, box, zoom) => {
  const room = Math.sqrt((box.width * box.height) / Math.max(n, 1));
  return Math.max(5, Math.min(18, room * 0.55)) * (box.isFlat ? Math.sqrt(zoom) : 1);
};

export class Points {
  constructor(canvas, redraw) {
    this.canvas = canvas;
    this.gl = canvas.getContext("webgl2", { antialias: false, alpha: true });
    if (this.gl) this.prepare();
    canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
    canvas.addEventListener("webglcontextrestored", () => {
      this.prepare();
      redraw();
    });
  }

  prepare() {
    const gl = this.gl;
    const compile = (kind, source) => {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      return shader;
    };
    const program = gl.createProgram();
    gl.attachShader(program, compile(gl.VERTEX_SHADER, VERTEX));
    gl.attachShader(program, compile(gl.FRAGMENT_SHADER, FRAGMENT));
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) {
      // Drawn without WebGL instead.
      this.gl = null;
      return;
    }
    this.program = program;
    this.at = (name) => gl.getUniformLocation(program, name);
    this.palettes = new Map(); // bytes of a palette → texture
  }

  paint(panels, boxes, { token, zoom, colors, ratio }) {
    const gl = this.gl;
    gl.viewport(0, 0, this.canvas.width, this.canvas.height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.useProgram(this.program);
    gl.enable(gl.DEPTH_TEST);
    gl.depthFunc(gl.LEQUAL);
    const color = (name, text) => gl.uniform3f(this.at(name), ...rgb(text).map((part) => part / 255));
    color("u_page", colors.page);
    color("u_accent", colors.mark);
    panels.forEach((panel, i) => {
      const n = nNeurons(panel);
      if (!n) return;
      const box = boxes[i];
      gl.viewport(box.left * ratio, 0, box.width * ratio, box.height * ratio);
      this.fill(panel, token);
      gl.uniformMatrix4fv(this.at("u_project"), false, box.matrix);
      gl.uniform1f(this.at("u_signed"), panel.frames ? 1 : 0);
      gl.uniform1f(this.at("u_perspective"), box.isFlat ? 0 : 1);
      gl.uniform1f(this.at("u_pixels"), pixels(n, box, zoom) * ratio);
      this.usePalette(panel.palette);
      gl.drawArrays(gl.POINTS, 0, n);
    });
  }

  fill(panel, token) {
    const gl = this.gl;
    const attribute = (name, buffer, size, type) => {
      const place = gl.getAttribLocation(this.program, name);
      gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
      gl.enableVertexAttribArray(place);
      gl.vertexAttribPointer(place, size, type, false, 0, 0);
    };
    const send = (name, values, use) => {
      gl.bindBuffer(gl.ARRAY_BUFFER, panel.buffers[name]);
      gl.bufferData(gl.ARRAY_BUFFER, values, use);
    };
    if (!panel.buffers || panel.buffers.program !== this.program) {
      panel.buffers = { program: this.program };
      for (const name of ATTRIBUTES) panel.buffers[name] = gl.createBuffer();
      // A neuron without a position is outside of everything.
      const placed = panel.positions.map((x) => (Number.isFinite(x) ? x : 1e9));
      send("positions", placed, gl.STATIC_DRAW);
    }
    const buffers = panel.buffers;
    if (!buffers.fresh || buffers.token !== token) {
      send("values", valuesAt(panel, token), gl.DYNAMIC_DRAW);
      if (!buffers.fresh)
        send("sizes", panel.sizes || new Uint8Array(nNeurons(panel)).fill(110), gl.DYNAMIC_DRAW);
      buffers.token = token;
      buffers.fresh = true;
    }
    if (buffers.emphasized !== panel.emphasis) {
      send("emphasis", panel.emphasis, gl.DYNAMIC_DRAW);
      buffers.emphasized = panel.emphasis;
    }
    attribute("a_position", buffers.positions, 3, gl.FLOAT);
    attribute("a_value", buffers.values, 1, panel.frames ? gl.BYTE : gl.UNSIGNED_BYTE);
    attribute("a_size", buffers.sizes, 1, gl.UNSIGNED_BYTE);
    attribute("a_emphasis", buffers.emphasis, 1, gl.UNSIGNED_BYTE);
  }

  usePalette(palette) {
    const gl = this.gl;
    if (!this.palettes.has(palette)) {
      const texture = gl.createTexture();
      gl.bindTexture(gl.TEXTURE_2D, texture);
      gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
      gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGB8, 256, 1, 0, gl.RGB, gl.UNSIGNED_BYTE, palette);
      for (const side of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER])
        gl.texParameteri(gl.TEXTURE_2D, side, gl.NEAREST);
      this.palettes.set(palette, texture);
    }
    gl.bindTexture(gl.TEXTURE_2D, this.palettes.get(palette));
  }

  forgetPalettes() {
    if (!this.gl) return;
    for (const texture of this.palettes.values()) this.gl.deleteTexture(texture);
    this.palettes.clear();
  }

  release(panel) {
    if (this.gl && panel.buffers)
      for (const name of ATTRIBUTES) this.gl.deleteBuffer(panel.buffers[name]);
    panel.buffers = null;
  }

  // Browsers keep few contexts: give this one back now.
  destroy() {
    const lose = this.gl && this.gl.getExtension("WEBGL_lose_context");
    if (lose) lose.loseContext();
  }
}

// The same without WebGL.
export const paintPoints = (pen, panel, box, { token, zoom, colors }) => {
  const n = nNeurons(panel);
  const shown = valuesAt(panel, token);
  const palette = panel.palette;
  const largest = pixels(n, box, zoom);
  const found = [];
  for (let i = 0; i < n; i++) {
    const at = panel.emphasis[i] && placeOf(panel, box, i);
    if (at) found.push([box.isFlat ? -panel.emphasis[i] : at.depth, at, i]);
  }
  found.sort((a, b) => b[0] - a[0]);
  const [page, accent] = [rgb(colors.page), rgb(colors.mark)];
  for (const [, at, i] of found) {
    const shade = 3 * (panel.frames ? shown[i] + 128 : shown[i]);
    const size = panel.frames
      ? Math.sqrt(Math.abs(shown[i]) / 127)
      : (panel.sizes ? panel.sizes[i] : 110) / 255;
    const own = panel.emphasis[i] === ACCENT ? accent : palette.subarray(shade, shade + 3);
    const share = panel.emphasis[i] / 255;
    const mixed = page.map((part, k) => Math.round(part * (1 - share) + own[k] * share));
    pen.fillStyle = `rgb(${mixed.join(",")})`;
    pen.beginPath();
    pen.arc(at.x, at.y, (largest * (0.28 + size) * at.near * (0.75 + 0.25 * share)) / 2, 0, 7);
    pen.fill();
  }
};

const PROBED = new Map();
let probe = null;

// The bytes of any colour that a style sheet may name.
export const rgb = (color) => {
  if (!PROBED.has(color)) {
    probe ||= element("canvas").getContext("2d", { willReadFrequently: true });
    probe.clearRect(0, 0, 1, 1);
    probe.fillStyle = color;
    probe.fillRect(0, 0, 1, 1);
    PROBED.set(color, [...probe.getImageData(0, 0, 1, 1).data].slice(0, 3));
  }
  return PROBED.get(color);
};

// Whether text is light on a dark page.
export const isDark = (color) => {
  const [r, g, b] = rgb(color);
  return 0.299 * r + 0.587 * g + 0.114 * b < 128;
};
