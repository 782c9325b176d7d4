// Neurons as points: panels that share one camera, with a timeline where there are tokens.
//
// Positions and the values of whole prompts are sent once and kept here by their id; colours and
// sizes come as bytes. Nothing but the user moves the camera. All text is set as text, never as
// HTML.

const KEPT = new Map(); // id → typed array, for all maps of this page.
const MOST_KEPT = 256e6; // Bytes.
const SHOWN = new Map(); // map → ids of what it shows.
const CAMERAS = new Map(); // key of a map → where its camera was left, also while it is not shown.
const INSTANCES = new WeakMap();
const START = { yaw: 0.65, pitch: -0.4, zoom: 1, x: 0, y: 0.16 };
const FIELD = 0.45; // The field of view across the shorter side, radians.
const AWAY = 7; // Distance of the eye at zoom 1, in half widths of the frame.

const VERTEX = `#version 300 es
in vec3 a_position;
in float a_value;
in float a_size;
uniform mat4 u_project;
uniform float u_signed;
uniform float u_pixels;
uniform float u_perspective;
uniform sampler2D u_palette;
out vec3 v_color;
void main() {
  gl_Position = u_project * vec4(a_position, 1.0);
  float shade = u_signed > 0.5 ? a_value + 128.0 : a_value;
  float size = u_signed > 0.5 ? sqrt(abs(a_value) / 127.0) : a_size / 255.0;
  v_color = texelFetch(u_palette, ivec2(int(clamp(shade, 0.0, 255.0)), 0), 0).rgb;
  float near = u_perspective > 0.5 ? ${AWAY.toFixed(1)} / gl_Position.w : 1.0;
  gl_PointSize = u_pixels * (0.28 + size) * clamp(near, 0.35, 3.0);
}`;

const FRAGMENT = `#version 300 es
precision mediump float;
in vec3 v_color;
uniform vec3 u_rim;
out vec4 color;
void main() {
  float r = length(gl_PointCoord - 0.5) * 2.0;
  if (r > 1.0) discard;
  // A rim in the colour of the page keeps points apart where they overlap.
  color = vec4(r > 0.78 ? mix(v_color, u_rim, 0.65) : v_color, 1.0);
}`;

const bytes = (text, Type) => {
  const raw = atob(text);
  const buffer = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) buffer[i] = raw.charCodeAt(i);
  return new Type(buffer.buffer);
};

const element = (name, className, text) => {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
};

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

const projection = (camera, aspect, extent, dim) => {
  const scale = 1 / extent;
  if (dim < 3) {
    const s = (0.8 * camera.zoom) / extent;
    const squeeze = aspect > 1 ? [1 / aspect, 1] : [1, aspect];
    // prettier-ignore
    return new Float32Array([
      s * squeeze[0], 0, 0, 0, 0, s * squeeze[1], 0, 0, 0, 0, 1e-6, 0,
      camera.x * squeeze[0], camera.y * squeeze[1], 0, 1,
    ]);
  }
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

// The same of what lies about another middle than 0.
const about = (middle, matrix) => {
  const [x, y, z] = middle;
  return multiply(
    matrix,
    new Float32Array([1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, -x, -y, -z, 1]),
  );
};

const keep = (id, values) => {
  KEPT.delete(id);
  KEPT.set(id, values);
  let size = 0;
  for (const each of KEPT.values()) size += each.byteLength;
  for (const [oldest, each] of KEPT) {
    if (size <= MOST_KEPT) break;
    // What is shown has to stay: it would be asked for at once.
    if (oldest === id || [...SHOWN.values()].some((ids) => ids.has(oldest))) continue;
    KEPT.delete(oldest);
    size -= each.byteLength;
  }
};

const tickStep = (extent) => {
  const rough = extent / 2;
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].map((k) => k * power).find((step) => step >= rough);
};

class NeuronMap {
  constructor(root) {
    this.root = root;
    this.camera = { ...START };
    this.panels = [];
    this.token = 0;
    this.playing = false;
    this.hover = null;
    this.nDrawn = 0;
    this.build();
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(this.stage);
    // The page's own colours follow its theme; maps do not know of a change otherwise.
    this.stage.addEventListener("transitionend", () => this.draw());
    this.themeWatch = new MutationObserver(() => this.draw());
    this.themeWatch.observe(document.documentElement, { attributes: true });
    this.themeWatch.observe(document.body, { attributes: true });
  }

  build() {
    const host = this.root.querySelector(".neuron-map");
    host.replaceChildren();
    this.host = host;
    this.stage = element("div", "stage");
    // The frame under the points, marks and text above them.
    this.under = element("canvas", "under");
    this.glCanvas = element("canvas", "points");
    this.overlay = element("canvas", "overlay");
    this.overlay.tabIndex = 0;
    this.overlay.setAttribute("role", "application");
    this.tip = element("div", "tip");
    this.tip.hidden = true;
    this.accent = element("span", "accent");
    const home = element("button", "home", "⟲");
    home.title = "Camera as at first (R)";
    home.setAttribute("aria-label", "Camera as at first");
    home.onclick = () => this.resetCamera();
    const save = element("button", "home save", "PNG");
    save.title = "Save as PNG";
    save.setAttribute("aria-label", "Save as PNG");
    save.onclick = () => this.savePicture();
    this.stage.append(this.under, this.glCanvas, this.overlay, this.tip, this.accent, home, save);
    this.legend = element("div", "legends");
    this.timeline = element("div", "timeline");
    // Tokens first: what is read stands above what is looked at.
    host.append(this.timeline, this.stage, this.legend);
    this.gl = this.glCanvas.getContext("webgl2", { antialias: false, alpha: true });
    if (this.gl) this.prepareGl();
    this.glCanvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
    this.glCanvas.addEventListener("webglcontextrestored", () => {
      this.prepareGl();
      for (const panel of this.panels) panel.buffers = null;
      this.draw();
    });
    this.listen();
    this.buildTimeline();
  }

  prepareGl() {
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

  // Data from the server.

  update(component) {
    this.send = component;
    if (!component.data) return;
    const isText = typeof component.data === "string";
    const data = JSON.parse(isText ? component.data : new TextDecoder().decode(component.data));
    if (data.key !== undefined && data.key !== this.cameraKey) {
      this.cameraKey = data.key;
      this.camera = CAMERAS.get(data.key) || this.camera;
      CAMERAS.set(data.key, this.camera);
    }
    SHOWN.set(
      this,
      new Set(data.panels.flatMap((panel) => [panel.positions_id, panel.values_id])),
    );
    const missing = [];
    const kept = (id, sent, Type) => {
      if (sent) keep(id, bytes(sent, Type));
      const found = KEPT.get(id);
      if (!found) missing.push(id);
      return found;
    };
    const before = this.panels;
    this.panels = data.panels.map((given, index) => {
      const positions = kept(given.positions_id, given.positions, Float32Array);
      const values = given.frames
        ? kept(given.values_id, given.values, Int8Array)
        : bytes(given.values, Uint8Array);
      const old = before[index];
      const same = old && positions && old.positions === positions;
      const panel = {
        ...given,
        positions: values && positions,
        values,
        palette: bytes(given.frames ? data.diverging : given.palette || data.palette, Uint8Array),
        sizes: given.sizes ? bytes(given.sizes, Uint8Array) : null,
        hoverValues: (given.hover || []).map((each) => ({
          ...each,
          values: each.values ? bytes(each.values, Float32Array) : null,
        })),
        buffers: same ? old.buffers : null,
      };
      if (old && !same) this.release(old);
      if (panel.buffers) panel.buffers.fresh = false;
      return panel;
    });
    for (const old of before.slice(this.panels.length)) this.release(old);
    if (this.gl) this.releasePalettes();
    this.dim = data.dim;
    this.extent = data.extent;
    this.data = data;
    this.stage.style.height = `${data.height}px`;
    this.overlay.setAttribute("aria-label", data.label);
    if (missing.length) this.send.setTriggerValue("missing", missing);
    this.showLegends();
    this.showTokens([data.tokens, data.tokens_beside], data.token, data.tokens_id);
    this.draw();
  }

  releasePalettes() {
    for (const texture of this.palettes.values()) this.gl.deleteTexture(texture);
    this.palettes.clear();
  }

  release(panel) {
    if (this.gl && panel.buffers)
      for (const name of ["positions", "values", "sizes"])
        this.gl.deleteBuffer(panel.buffers[name]);
    panel.buffers = null;
  }

  nNeurons(panel) {
    return panel.positions ? panel.positions.length / 3 : 0;
  }

  // Values of the token that is shown, or of all.
  shown(panel) {
    const n = this.nNeurons(panel);
    if (!panel.frames) return panel.values;
    const token = Math.min(this.token, panel.frames - 1);
    return panel.values.subarray(token * n, (token + 1) * n);
  }

  // Drawing.

  // Where only the values of points are others, the frame and the marks stay as they are drawn.
  draw(onlyValues = false) {
    if (!onlyValues) this.isStale = true;
    if (this.asked) return;
    this.asked = requestAnimationFrame(() => {
      this.asked = 0;
      this.paint();
    });
  }

  paint() {
    const width = this.stage.clientWidth;
    const height = this.stage.clientHeight;
    if (!width || !height || !this.data) return;
    const ratio = Math.min(window.devicePixelRatio || 1, 2);
    for (const canvas of [this.under, this.glCanvas, this.overlay])
      if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
        canvas.width = Math.round(width * ratio);
        canvas.height = Math.round(height * ratio);
        this.isStale = true;
      }
    if (this.isStale || !this.gl) this.paintFlat(width, height, ratio);
    if (this.gl) this.paintGl(ratio);
    this.isStale = false;
    this.nDrawn += 1;
    // What is on the screen, for tests and benchmarks.
    const state = this.host.dataset;
    state.drawn = String(this.nDrawn);
    state.shown = this.panels.map((panel) => `${panel.positions_id}/${panel.values_id}`).join(" ");
    state.points = String(this.panels.reduce((sum, panel) => sum + this.nNeurons(panel), 0));
    state.camera = JSON.stringify(this.camera);
    state.token = String(this.token);
    state.renderer = this.gl ? "webgl2" : "canvas";
    state.paintedAt = String(performance.timeOrigin + performance.now());
  }

  // All that WebGL does not draw: the frame below the points, marks and text above them.
  paintFlat(width, height, ratio) {
    // Of elements, not of the page's variables: those may hold what a canvas can't read.
    const stage = getComputedStyle(this.stage);
    this.colors = {
      text: stage.color,
      page: stage.backgroundColor,
      mark: getComputedStyle(this.accent).color,
    };
    const share = width / Math.max(1, this.panels.length);
    this.boxes = this.panels.map((_, i) => ({ left: i * share, width: share, height }));
    const [below, above] = [this.under, this.overlay].map((canvas) => {
      const pen = canvas.getContext("2d");
      pen.setTransform(ratio, 0, 0, ratio, 0, 0);
      pen.clearRect(0, 0, width, height);
      return pen;
    });
    this.panels.forEach((panel, i) => {
      const box = this.boxes[i];
      box.middle = panel.middle;
      box.matrix = this.matrix(panel, box);
      for (const pen of [below, above]) {
        pen.save();
        pen.beginPath();
        pen.rect(box.left, 0, box.width, box.height);
        pen.clip();
      }
      this.paintFrame(below, box);
      if (i) this.paintSeam(below, box);
      if (!this.gl) this.paintPoints(above, panel, box);
      this.paintMarks(above, panel, box);
      below.restore();
      above.restore();
    });
  }

  savePicture() {
    // Drawn and read in one go: afterwards the browser may have cleared what WebGL drew.
    this.paint();
    const picture = element("canvas");
    picture.width = this.overlay.width;
    picture.height = this.overlay.height;
    const pen = picture.getContext("2d");
    pen.fillStyle = this.colors.page;
    pen.fillRect(0, 0, picture.width, picture.height);
    for (const canvas of [this.under, this.glCanvas, this.overlay]) pen.drawImage(canvas, 0, 0);
    const link = element("a");
    link.download = `${this.panels.map((panel) => panel.title).join(" ")}.png`.replace(/[^\w.]+/g, "-");
    link.href = picture.toDataURL("image/png");
    link.click();
  }

  paintGl(ratio) {
    const gl = this.gl;
    gl.viewport(0, 0, this.glCanvas.width, this.glCanvas.height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.useProgram(this.program);
    gl.enable(gl.DEPTH_TEST);
    const rim = this.rgb(this.colors.page);
    gl.uniform3f(this.at("u_rim"), rim[0] / 255, rim[1] / 255, rim[2] / 255);
    this.panels.forEach((panel, i) => {
      const n = this.nNeurons(panel);
      if (!n) return;
      const box = this.boxes[i];
      gl.viewport(box.left * ratio, 0, box.width * ratio, box.height * ratio);
      this.fill(panel);
      gl.uniformMatrix4fv(this.at("u_project"), false, this.matrix(panel, box));
      gl.uniform1f(this.at("u_signed"), panel.frames ? 1 : 0);
      gl.uniform1f(this.at("u_perspective"), this.dim < 3 ? 0 : 1);
      gl.uniform1f(this.at("u_pixels"), this.pixels(n, box) * ratio);
      this.usePalette(panel.palette);
      gl.drawArrays(gl.POINTS, 0, n);
    });
  }

  // Of the largest point: smaller where there are many.
  pixels(n, box) {
    const room = Math.sqrt((box.width * box.height) / Math.max(n, 1));
    return Math.max(5, Math.min(18, room * 0.55)) * (this.dim < 3 ? Math.sqrt(this.camera.zoom) : 1);
  }

  fill(panel) {
    const gl = this.gl;
    const attribute = (name, buffer, size, type) => {
      const place = gl.getAttribLocation(this.program, name);
      gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
      gl.enableVertexAttribArray(place);
      gl.vertexAttribPointer(place, size, type, false, 0, 0);
    };
    if (!panel.buffers) {
      panel.buffers = {};
      for (const name of ["positions", "values", "sizes"]) panel.buffers[name] = gl.createBuffer();
      // A neuron without a position is outside of everything.
      const placed = panel.positions.map((x) => (Number.isFinite(x) ? x : 1e9));
      gl.bindBuffer(gl.ARRAY_BUFFER, panel.buffers.positions);
      gl.bufferData(gl.ARRAY_BUFFER, placed, gl.STATIC_DRAW);
    }
    const buffers = panel.buffers;
    if (!buffers.fresh || buffers.token !== this.token) {
      gl.bindBuffer(gl.ARRAY_BUFFER, buffers.values);
      gl.bufferData(gl.ARRAY_BUFFER, this.shown(panel), gl.DYNAMIC_DRAW);
      if (!buffers.fresh) {
        gl.bindBuffer(gl.ARRAY_BUFFER, buffers.sizes);
        const sizes = panel.sizes || new Uint8Array(this.nNeurons(panel)).fill(110);
        gl.bufferData(gl.ARRAY_BUFFER, sizes, gl.DYNAMIC_DRAW);
      }
      buffers.token = this.token;
      buffers.fresh = true;
    }
    attribute("a_position", buffers.positions, 3, gl.FLOAT);
    attribute("a_value", buffers.values, 1, panel.frames ? gl.BYTE : gl.UNSIGNED_BYTE);
    attribute("a_size", buffers.sizes, 1, gl.UNSIGNED_BYTE);
  }

  usePalette(palette) {
    const gl = this.gl;
    if (!this.palettes.has(palette)) {
      const texture = gl.createTexture();
      gl.bindTexture(gl.TEXTURE_2D, texture);
      gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
      gl.texImage2D(
        gl.TEXTURE_2D, 0, gl.RGB8, 256, 1, 0, gl.RGB, gl.UNSIGNED_BYTE, palette,
      );
      for (const side of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER])
        gl.texParameteri(gl.TEXTURE_2D, side, gl.NEAREST);
      this.palettes.set(palette, texture);
    }
    gl.bindTexture(gl.TEXTURE_2D, this.palettes.get(palette));
  }

  // The same without WebGL.
  paintPoints(pen, panel, box) {
    const n = this.nNeurons(panel);
    const shown = this.shown(panel);
    const palette = panel.palette;
    const largest = this.pixels(n, box);
    const placed = [];
    for (let i = 0; i < n; i++) {
      const at = this.place(panel, box, i);
      if (at) placed.push([at, i]);
    }
    placed.sort((a, b) => b[0].depth - a[0].depth);
    for (const [at, i] of placed) {
      const shade = 3 * (panel.frames ? shown[i] + 128 : shown[i]);
      const size = panel.frames
        ? Math.sqrt(Math.abs(shown[i]) / 127)
        : (panel.sizes ? panel.sizes[i] : 110) / 255;
      pen.fillStyle = `rgb(${palette[shade]},${palette[shade + 1]},${palette[shade + 2]})`;
      pen.beginPath();
      pen.arc(at.x, at.y, (largest * (0.28 + size) * at.near) / 2, 0, 7);
      pen.fill();
    }
  }

  // Where a neuron stands on the screen, in CSS pixels; null for nowhere.
  matrix(panel, box) {
    const aspect = box.width / box.height;
    return about(panel.middle, projection(this.camera, aspect, this.extent, this.dim));
  }

  place(panel, box, i) {
    const p = panel.positions;
    return this.placePoint(box, p[3 * i], p[3 * i + 1], p[3 * i + 2]);
  }

  placePoint(box, x, y, z) {
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
      near: this.dim < 3 ? 1 : Math.max(0.35, Math.min(3, AWAY / w)),
    };
  }

  // The axes: of flat maps two, of others a floor and a pillar, all with ticks. Places in here are
  // told from the middle of the points; what a tick says is the coordinate.
  paintFrame(pen, box) {
    const e = this.extent;
    const step = tickStep(e);
    const digits = Math.max(0, -Math.floor(Math.log10(step)));
    const ticks = box.middle.map((middle) => {
      const found = [];
      for (let k = Math.ceil((middle - e) / step); k * step <= middle + e; k++)
        found.push({ at: k * step - middle, value: k * step });
      return found;
    });
    const place = (x, y, z) => {
      const [mx, my, mz] = box.middle;
      return this.placePoint(box, x + mx, y + my, z + mz);
    };
    pen.strokeStyle = this.colors.text;
    pen.fillStyle = this.colors.text;
    pen.lineWidth = 1;
    pen.textBaseline = "middle";
    const line = (a, b, alpha) => {
      const [from, to] = [place(...a), place(...b)];
      if (!from || !to) return;
      pen.globalAlpha = alpha;
      pen.beginPath();
      pen.moveTo(from.x, from.y);
      pen.lineTo(to.x, to.y);
      pen.stroke();
    };
    // One axis: `at(t)` on its line, `away` the same a little outside of it.
    const axis = (name, ticks, at, away, align, named = [away(0, 1.36)]) => {
      line(at(-e), at(e), 0.4);
      pen.textAlign = align;
      const say = (text, point, font, alpha) => {
        const found = place(...point);
        if (!found) return;
        pen.font = font;
        pen.globalAlpha = alpha;
        // Never beyond the left: what stands there is the number of an axis.
        pen.fillText(text, Math.max(found.x, box.left + (pen.textAlign === "left" ? 8 : 24)), found.y);
      };
      for (const { at: t, value } of ticks) {
        line(at(t), away(t, 1.03), 0.4);
        const text = (Math.abs(value) < step / 2 ? 0 : value).toFixed(digits).replace("-", "−");
        say(text, away(t, 1.11), "11px sans-serif", 0.65);
      }
      say(name, ...named, "12px sans-serif", 0.9);
    };
    const [first, second, third] = this.data.axes;
    if (this.dim < 3) {
      for (const { at: t } of ticks[0]) line([t, -e, 0], [t, e, 0], 0.1);
      for (const { at: t } of ticks[1]) line([-e, t, 0], [e, t, 0], 0.1);
      axis(first, ticks[0], (t) => [t, -e, 0], (t, out) => [t, -e * out, 0], "center");
      axis(second, ticks[1], (t) => [-e, t, 0], (t, out) => [-e * out, t, 0], "right", [[-e, 1.12 * e, 0]]);
    } else {
      for (const { at: t } of ticks[0]) line([t, -e, -e], [t, -e, e], 0.1);
      for (const { at: t } of ticks[2]) line([-e, -e, t], [e, -e, t], 0.1);
      // Labels stand on the edges next to the eye, and beside the corner at the left.
      const depth = (x, z) => (place(x, -e, z) || { depth: 0 }).depth;
      const x = depth(e, 0) < depth(-e, 0) ? e : -e;
      const z = depth(0, e) < depth(0, -e) ? e : -e;
      line([-x, -e, -e], [-x, -e, e], 0.2);
      line([-e, -e, -z], [e, -e, -z], 0.2);
      const across = (px, pz) => (place(px, -e, pz) || { x: 0 }).x;
      const [px, pz] = across(x, -z) < across(-x, z) ? [x, -z] : [-x, z];
      axis(first, ticks[0], (t) => [t, -e, z], (t, out) => [t, -e, z * out], "center");
      axis(third, ticks[2], (t) => [x, -e, t], (t, out) => [x * out, -e, t], "center");
      // Inside, for there is no room at its left.
      const inside = (t, out) => [px * (2 - out), t, pz * (2 - out)];
      axis(second, ticks[1], (t) => [px, t, pz], inside, "left", [[px, 1.12 * e, pz]]);
    }
    pen.textAlign = "left";
    pen.textBaseline = "alphabetic";
    pen.globalAlpha = 1;
  }

  paintSeam(pen, box) {
    pen.strokeStyle = this.colors.text;
    pen.globalAlpha = 0.12;
    pen.beginPath();
    pen.moveTo(box.left + 0.5, 0);
    pen.lineTo(box.left + 0.5, box.height);
    pen.stroke();
    pen.globalAlpha = 1;
  }

  paintMarks(pen, panel, box) {
    pen.font = "600 13px sans-serif";
    pen.fillStyle = this.colors.text;
    pen.globalAlpha = 1;
    pen.fillText(panel.title, box.left + 10, 20);
    if (!panel.positions) {
      pen.font = "13px sans-serif";
      pen.fillText("waiting for positions …", box.left + 10, 40);
      return;
    }
    const ring = (i, radius, width) => {
      const at = this.place(panel, box, i);
      if (!at) return;
      pen.strokeStyle = this.colors.page;
      pen.lineWidth = width + 2;
      pen.beginPath();
      pen.arc(at.x, at.y, radius * at.near, 0, 7);
      pen.stroke();
      pen.strokeStyle = this.colors.mark;
      pen.lineWidth = width;
      pen.stroke();
      return at;
    };
    for (const i of panel.marked || []) ring(i, 7, 1.25);
    if (panel.selected !== null && panel.selected !== undefined) {
      const at = ring(panel.selected, 11, 2.5);
      if (at) {
        pen.font = "600 12px sans-serif";
        pen.strokeStyle = this.colors.page;
        pen.lineWidth = 3;
        const text = `${panel.name} N${panel.selected}`;
        pen.strokeText(text, at.x + 14, at.y - 8);
        pen.fillText(text, at.x + 14, at.y - 8);
      }
    }
  }

  rgb(color) {
    const pen = (this.probe ||= element("canvas").getContext("2d", { willReadFrequently: true }));
    if (this.probed !== color) {
      pen.fillStyle = color;
      pen.fillRect(0, 0, 1, 1);
      this.probed = color;
      this.probedRgb = pen.getImageData(0, 0, 1, 1).data;
    }
    return this.probedRgb;
  }

  // What the user does.

  listen() {
    const canvas = this.overlay;
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.drag = { x: event.clientX, y: event.clientY, moved: 0, pan: event.button !== 0 || event.shiftKey };
      this.hideTip();
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!this.drag) {
        this.point(event);
        return;
      }
      const [dx, dy] = [event.clientX - this.drag.x, event.clientY - this.drag.y];
      Object.assign(this.drag, { x: event.clientX, y: event.clientY });
      this.drag.moved += Math.abs(dx) + Math.abs(dy);
      if (this.drag.moved > 4) this.turn(dx, dy, this.drag.pan);
    });
    canvas.addEventListener("pointerup", (event) => {
      const clicked = this.drag && this.drag.moved <= 4;
      this.drag = null;
      const found = clicked && event.button === 0 && this.find(event);
      if (found) this.send.setTriggerValue("picked", found);
    });
    canvas.addEventListener("pointercancel", () => (this.drag = null));
    canvas.addEventListener("pointerleave", () => this.hideTip());
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener(
      "wheel",
      (event) => {
        event.preventDefault();
        this.zoom(Math.exp(-event.deltaY * 0.0015));
      },
      { passive: false },
    );
    canvas.addEventListener("dblclick", () => this.resetCamera());
    this.host.addEventListener("keydown", (event) => this.key(event));
    // Where nothing has the focus, the tokens have the keys.
    this.anywhere = (event) => {
      const isFree = event.target === document.body || event.target === document.documentElement;
      if (isFree && this.nTokens > 1) this.key(event);
    };
    document.addEventListener("keydown", this.anywhere);
  }

  turn(dx, dy, pan) {
    const height = this.stage.clientHeight;
    // What is flat is moved: turned it would look the same.
    if (pan || this.dim < 3) {
      const reach = this.dim < 3 ? 2 : 2.66 / this.camera.zoom;
      this.camera.x += (dx / height) * reach;
      this.camera.y -= (dy / height) * reach;
    } else {
      // What is in front follows the pointer.
      this.camera.yaw -= dx * 0.008;
      this.camera.pitch = Math.max(-1.55, Math.min(1.55, this.camera.pitch - dy * 0.008));
    }
    this.draw();
  }

  zoom(factor) {
    const before = this.camera.zoom;
    this.camera.zoom = Math.max(0.3, Math.min(30, before * factor));
    if (this.dim < 3) {
      this.camera.x *= this.camera.zoom / before;
      this.camera.y *= this.camera.zoom / before;
    }
    this.draw();
  }

  resetCamera() {
    Object.assign(this.camera, START);
    this.draw();
  }

  key(event) {
    // Those are the browser's.
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const inTokens = event.target.tagName === "INPUT" || event.target.tagName === "SELECT";
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const step = steps[event.key];
    const isTimed = this.nTokens > 1;
    const isPressed = event.target.tagName === "BUTTON";
    if (event.key === " " && isTimed && !isPressed) this.play(!this.playing);
    else if (step && isTimed && !event.shiftKey && step[0] && !inTokens)
      this.goTo(this.token + step[0], true);
    else if (step && !inTokens) this.turn(step[0] * 15, step[1] * 15, false);
    else if (event.key === "Home" && isTimed && !inTokens) this.goTo(0, true);
    else if (event.key === "End" && isTimed && !inTokens) this.goTo(this.nTokens - 1, true);
    else if (event.key === "+" || event.key === "=") this.zoom(1.2);
    else if (event.key === "-") this.zoom(1 / 1.2);
    else if (event.key === "r" || event.key === "R") this.resetCamera();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  find(event) {
    const area = this.overlay.getBoundingClientRect();
    const [x, y] = [event.clientX - area.left, event.clientY - area.top];
    const index = (this.boxes || []).findIndex((b) => x >= b.left && x < b.left + b.width);
    const panel = this.panels[index];
    if (!panel || !panel.positions) return null;
    const box = this.boxes[index];
    const largest = this.pixels(this.nNeurons(panel), box);
    let best = null;
    for (let i = 0; i < this.nNeurons(panel); i++) {
      const at = this.place(panel, box, i);
      if (!at) continue;
      const apart = Math.hypot(at.x - x, at.y - y);
      const reach = Math.max(5, (largest * at.near) / 2);
      // Of those under the pointer the one in front; else the nearest.
      if (apart <= reach && (!best || at.depth - best.depth < (apart < best.apart ? 0.05 : -0.05)))
        best = { apart, depth: at.depth, neuron: i };
    }
    return best && { panel: index, neuron: best.neuron };
  }

  point(event) {
    this.pointer = event;
    if (this.pointing) return;
    this.pointing = requestAnimationFrame(() => {
      this.pointing = 0;
      const found = this.find(this.pointer);
      if (found) this.showTip(found, this.pointer);
      else this.hideTip();
    });
  }

  showTip(found, event) {
    const panel = this.panels[found.panel];
    const lines = [`${panel.name} N${found.neuron}`];
    if (panel.frames) {
      // Of a byte: about, and beyond the scale no more than that.
      const level = this.shown(panel)[found.neuron];
      const value = ((level / 127) * panel.scale).toPrecision(2).replace("-", "−");
      const sign = level === 127 ? "≥" : level === -127 ? "≤" : "≈";
      lines.push(`${panel.value_label || "activation"} ${sign} ${value}`);
    }
    for (const each of panel.hoverValues) {
      const value = each.values ? each.values[found.neuron] : null;
      if (value === null || Number.isNaN(value)) continue;
      const text = each.names ? each.names[value] : Number.isInteger(value) ? String(value) : value.toPrecision(3);
      if (text !== undefined) lines.push([each.label, text.replace("-", "−")].filter(Boolean).join(" "));
    }
    this.tip.replaceChildren(...lines.map((line) => element("div", "", line)));
    this.tip.hidden = false;
    const area = this.stage.getBoundingClientRect();
    const x = event.clientX - area.left;
    this.tip.style.left = `${Math.min(x + 14, area.width - this.tip.offsetWidth - 4)}px`;
    this.tip.style.top = `${Math.max(4, event.clientY - area.top - this.tip.offsetHeight - 8)}px`;
    this.overlay.style.cursor = "pointer";
  }

  hideTip() {
    this.tip.hidden = true;
    this.overlay.style.cursor = "grab";
  }

  // Legend.

  // One below each map that has its own, or one for all.
  showLegends() {
    const shared = this.data.legend ? [[this.data.legend, null]] : [];
    const own = this.panels.map((panel) => [panel.legend, panel.palette]);
    const rows = (shared.length ? shared : own).filter(([legend]) => legend);
    this.legend.replaceChildren(...rows.map((row) => this.legendOf(...row)));
  }

  legendOf(legend, own) {
    const palette = own || bytes(legend.signed ? this.data.diverging : this.data.palette, Uint8Array);
    const color = (i) => `rgb(${palette[3 * i]},${palette[3 * i + 1]},${palette[3 * i + 2]})`;
    const made = element("div", "legend");
    if (legend.label) made.append(element("span", "name", legend.label));
    if (legend.items) {
      for (const [text, index] of legend.items) {
        const item = element("span", "item");
        if (index !== null) {
          const dot = element("span", "dot");
          dot.style.background = color(index);
          item.append(dot);
        }
        item.append(element("span", "", text));
        made.append(item);
      }
    } else {
      const bar = element("span", "bar");
      const stops = [...Array(17).keys()].map((i) => color(Math.min(255, i * 16)));
      bar.style.background = `linear-gradient(to right, ${stops.join(", ")})`;
      made.append(element("span", "", legend.low), bar, element("span", "", legend.high));
    }
    if (legend.size) made.append(element("span", "size", legend.size));
    return made;
  }

  // Timeline.

  buildTimeline() {
    this.nTokens = 0;
    this.rows = [];
    this.playButton = element("button", "play", "▶");
    this.playButton.setAttribute("aria-label", "Play or pause (Space)");
    this.playButton.title = "Play or pause (Space)";
    this.playButton.onclick = () => this.play(!this.playing);
    this.slider = element("input", "slider");
    this.slider.type = "range";
    this.slider.min = "0";
    this.slider.setAttribute("aria-label", "Token");
    this.slider.oninput = () => this.goTo(Number(this.slider.value), true);
    this.speed = element("select", "speed");
    this.speed.setAttribute("aria-label", "Tokens per second");
    for (const rate of [1, 2, 4, 8, 20, 30]) {
      const option = element("option", "", `${rate} tokens/s`);
      option.value = String(rate);
      option.selected = rate === 4;
      this.speed.append(option);
    }
    this.count = element("span", "count");
    const row = element("div", "controls");
    row.append(this.playButton, this.slider, this.count, this.speed);
    this.strips = element("div", "strips");
    this.timeline.append(row, this.strips);
  }

  // Tokens in a row; of two prompts two rows, with their names.
  stripOf(tokens, name) {
    const strip = element("div", "strip");
    if (name) strip.append(element("span", "which", name));
    const spans = tokens.map((each, i) => {
      // No button: those are blocks, and a line that ends within one would not end here.
      const span = element("span", each.made ? "token made" : "token", each.text);
      span.setAttribute("role", "button");
      span.title = each.title;
      span.tabIndex = -1;
      span.onclick = () => this.goTo(i, true);
      return span;
    });
    strip.append(...spans);
    return { strip, spans };
  }

  showTokens(prompts, token, id) {
    this.nTokens = Math.max(...prompts.map((tokens) => tokens.length));
    this.timeline.hidden = this.nTokens === 0;
    if (this.tokensId !== id) {
      this.tokensId = id;
      clearTimeout(this.telling);
      this.play(false, true);
      const given = prompts.filter((tokens) => tokens.length);
      this.rows = given.map((tokens, k) => this.stripOf(tokens, given.length > 1 ? "AB"[k] : ""));
      this.strips.replaceChildren(...this.rows.map((row) => row.strip));
      this.slider.max = String(Math.max(0, this.nTokens - 1));
      this.told = [];
      this.served = token;
      this.colorTokens(prompts);
      this.goTo(token, false);
      // Keys step through the tokens from here on, where they are not needed elsewhere.
      const active = document.activeElement;
      if (this.nTokens && active && active.tagName === "BUTTON")
        this.overlay.focus({ preventScroll: true });
      return;
    }
    this.colorTokens(prompts);
    // The server says again what it was told, when the user may be further on already.
    const echo = this.told.indexOf(token);
    if (echo >= 0) this.told.splice(0, echo + 1);
    else if (token !== this.served && !this.playing) this.goTo(token, false);
    this.served = token;
  }

  // Backgrounds and titles of the tokens: they change while the tokens stay.
  colorTokens(prompts) {
    const given = prompts.filter((tokens) => tokens.length);
    this.rows.forEach(({ spans }, k) => {
      spans.forEach((span, i) => {
        const { color, title } = given[k][i];
        span.title = title;
        span.classList.toggle("colored", Boolean(color));
        if (color) span.style.setProperty("--fill", color);
        else span.style.removeProperty("--fill");
      });
    });
  }

  goTo(token, tell) {
    const last = Math.max(0, this.nTokens - 1);
    this.token = Math.max(0, Math.min(last, token));
    this.slider.value = String(this.token);
    this.count.textContent = `${this.token + 1} of ${this.nTokens}`;
    for (const row of this.rows) {
      const { strip, spans } = row;
      const now = spans[Math.min(this.token, spans.length - 1)];
      if (now === row.now) continue;
      if (row.now) row.now.classList.remove("now");
      row.now = now;
      now.classList.add("now");
      const [top, height] = [now.offsetTop - strip.offsetTop, strip.clientHeight];
      if (top < strip.scrollTop || top + now.offsetHeight > strip.scrollTop + height)
        strip.scrollTop = top - height / 2;
    }
    this.draw(true);
    if (tell && !this.playing) this.tellLater();
  }

  // The server is told where the user came to rest, not of every step.
  tellLater() {
    clearTimeout(this.telling);
    this.telling = setTimeout(() => {
      const known = this.told.length ? this.told[this.told.length - 1] : this.served;
      if (known === this.token) return;
      this.told.push(this.token);
      // As a trigger: the same token may be told twice, of one prompt and of the next.
      this.send.setTriggerValue("token", this.token);
    }, 250);
  }

  play(on, quiet) {
    if (on === this.playing) return;
    this.playing = on;
    this.playButton.textContent = on ? "⏸" : "▶";
    cancelAnimationFrame(this.ticking);
    if (!on) {
      if (!quiet) this.tellLater();
      return;
    }
    if (this.token >= this.nTokens - 1) this.goTo(0, false);
    let next = performance.now() + 1000 / Number(this.speed.value);
    const tick = (now) => {
      if (!this.playing) return;
      if (now >= next) {
        // As fast as the screen is, and no frame skipped.
        next = Math.max(next + 1000 / Number(this.speed.value), now);
        if (this.token >= this.nTokens - 1) {
          this.play(false);
          return;
        }
        this.goTo(this.token + 1, false);
      }
      this.ticking = requestAnimationFrame(tick);
    };
    this.ticking = requestAnimationFrame(tick);
  }

  destroy() {
    this.play(false, true);
    clearTimeout(this.telling);
    cancelAnimationFrame(this.asked);
    this.observer.disconnect();
    document.removeEventListener("keydown", this.anywhere);
    this.themeWatch.disconnect();
    for (const panel of this.panels) this.release(panel);
    SHOWN.delete(this);
    // Browsers keep few contexts: give this one back now.
    const lose = this.gl && this.gl.getExtension("WEBGL_lose_context");
    if (lose) lose.loseContext();
  }
}

export default function (component) {
  const root = component.parentElement;
  let map = INSTANCES.get(root);
  if (!map) {
    map = new NeuronMap(root);
    INSTANCES.set(root, map);
  }
  clearTimeout(map.leaving);
  map.update(component);
  return () => {
    // Called before every update too: only what is not drawn again has gone.
    map.leaving = setTimeout(() => {
      map.destroy();
      INSTANCES.delete(root);
    }, 1000);
  };
}
