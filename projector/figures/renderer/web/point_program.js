// The program that draws points: those of a map, which stay, and those that move between two frames.

import { AWAY } from "./camera.js";
import { ACCENT } from "./emphasis.js";

// Where a point without a position is: outside of everything, at whatever share it is mixed.
export const NOWHERE = 1e30;

// A map gives no next frame: then that is 0, as is the share of it.
export const POINT_VERTEX = `#version 300 es
in vec3 a_position;
in vec3 a_next;
in float a_value;
in float a_value_next;
in float a_size;
in float a_emphasis;
in float a_born;
uniform mat4 u_project;
uniform float u_frame;
uniform float u_share;
uniform float u_signed;
uniform float u_pixels;
uniform float u_perspective;
uniform vec3 u_accent;
uniform sampler2D u_palette;
out vec3 v_color;
out float v_emphasis;
void main() {
  bool isNew = u_frame < a_born;
  vec3 from = isNew ? a_next : a_position;
  vec3 here = u_share > 0.0 ? mix(from, a_next, u_share) : from;
  gl_Position = u_project * vec4(here, 1.0);
  float value = mix(isNew ? a_value_next : a_value, a_value_next, u_share);
  float shade = u_signed > 0.5 ? value + 128.0 : value + 0.5;
  float size = u_signed > 0.5 ? sqrt(abs(value) / 127.0) : a_size / 255.0;
  v_color = texelFetch(u_palette, ivec2(int(clamp(shade, 0.0, 255.0)), 0), 0).rgb;
  v_emphasis = a_emphasis / 255.0;
  if (a_emphasis == ${ACCENT}.0) v_color = u_accent;
  float near = u_perspective > 0.5 ? ${AWAY.toFixed(1)} / gl_Position.w : 1.0;
  gl_PointSize = u_pixels * (0.28 + size) * clamp(near, 0.35, 3.0) * (0.75 + 0.25 * v_emphasis);
  // What comes into being grows on its way to its first frame.
  float age = clamp(u_frame + u_share - a_born + 1.0, 0.0, 1.0);
  gl_PointSize *= age;
  // On flat maps what is pale lies below; what is hidden is outside of everything.
  if (u_perspective < 0.5) gl_Position.z = -0.9 * v_emphasis * gl_Position.w;
  if (a_emphasis == 0.0 || age == 0.0 || abs(here.x) > 1e20) gl_Position = vec4(9.0, 9.0, 9.0, 1.0);
}`;

export const POINT_FRAGMENT = `#version 300 es
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

// Of the largest point: smaller where there are many.
export const pixels = (n, box, zoom) => {
  const room = Math.sqrt((box.width * box.height) / Math.max(n, 1));
  return Math.max(5, Math.min(18, room * 0.55)) * (box.isFlat ? Math.sqrt(zoom) : 1);
};
