// A map's neurons as points, by WebGL.

import { Device } from "./device.js";
import { NOWHERE, POINT_FRAGMENT, POINT_VERTEX, pixels } from "./point_program.js";

const ATTRIBUTES = ["positions", "values", "sizes", "emphasis"];

export const nNeurons = (panel) => (panel.positions ? panel.positions.length / 3 : 0);

// Values of the token that is shown, or of all.
export const valuesAt = (panel, token) => {
  if (!panel.frames) return panel.values;
  const n = nNeurons(panel);
  const at = Math.min(token, panel.frames - 1);
  return panel.values.subarray(at * n, (at + 1) * n);
};

export class Points {
  constructor(canvas, redraw) {
    this.canvas = canvas;
    const prepare = (device) => (this.program = device.program(POINT_VERTEX, POINT_FRAGMENT));
    this.device = new Device(canvas, prepare, redraw);
  }

  // Null without WebGL.
  get gl() {
    return this.device.gl;
  }

  paint(panels, boxes, { token, zoom, colors, ratio }) {
    const { device, gl } = this;
    const { made, at } = this.program;
    device.clear();
    gl.useProgram(made);
    gl.enable(gl.DEPTH_TEST);
    gl.depthFunc(gl.LEQUAL);
    device.setColor(at("u_page"), colors.page);
    device.setColor(at("u_accent"), colors.mark);
    panels.forEach((panel, i) => {
      const n = nNeurons(panel);
      if (!n) return;
      const box = boxes[i];
      device.enter(box, ratio);
      this.fill(panel, token);
      gl.uniformMatrix4fv(at("u_project"), false, box.matrix);
      gl.uniform1f(at("u_signed"), panel.frames ? 1 : 0);
      gl.uniform1f(at("u_perspective"), box.isFlat ? 0 : 1);
      gl.uniform1f(at("u_pixels"), pixels(n, box, zoom) * ratio);
      device.usePalette(panel.palette, at("u_palette"));
      gl.drawArrays(gl.POINTS, 0, n);
      device.endAttributes();
    });
  }

  fill(panel, token) {
    const { device, gl } = this;
    const send = (name, values, use) => {
      gl.bindBuffer(gl.ARRAY_BUFFER, panel.buffers[name]);
      gl.bufferData(gl.ARRAY_BUFFER, values, use);
    };
    if (!panel.buffers || panel.buffers.program !== this.program) {
      panel.buffers = { program: this.program };
      for (const name of ATTRIBUTES) panel.buffers[name] = gl.createBuffer();
      const placed = panel.positions.map((x) => (Number.isFinite(x) ? x : NOWHERE));
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
    device.attribute(this.program, "a_position", buffers.positions, 3, gl.FLOAT);
    device.attribute(
      this.program,
      "a_value",
      buffers.values,
      1,
      panel.frames ? gl.BYTE : gl.UNSIGNED_BYTE,
    );
    device.attribute(this.program, "a_size", buffers.sizes, 1, gl.UNSIGNED_BYTE);
    device.attribute(this.program, "a_emphasis", buffers.emphasis, 1, gl.UNSIGNED_BYTE);
  }

  forgetPalettes() {
    this.device.forgetPalettes();
  }

  release(panel) {
    if (this.gl && panel.buffers)
      for (const name of ATTRIBUTES) this.gl.deleteBuffer(panel.buffers[name]);
    panel.buffers = null;
  }

  destroy() {
    this.device.destroy();
  }
}
