// The programs that draw lines between points that move: to neighbours, to partners, and trails. A
// vertex's number says which end of which line it is; all else is read from textures by its place.

import { NUMBERS } from "./device.js";

export const STRENGTH = { lines: 0.4, pairs: 0.75, trails: 0.7 };

// Where point i is at a time in frames; before it came into being, where it does.
const PLACES = `
uniform sampler2D u_positions;
uniform sampler2D u_emphasis;
uniform isampler2D u_born;
uniform mat4 u_project;
uniform int u_n;
uniform float u_at;
float born(int i) { return float(texelFetch(u_born, spot(i), 0).r); }
float emphasis(int i) { return texelFetch(u_emphasis, spot(i), 0).r; }
vec3 placeAt(int i, float at) {
  float when = max(at, born(i));
  float frame = floor(when);
  int first = int(frame) * u_n + i;
  vec3 from = texelFetch(u_positions, spot(first), 0).xyz;
  if (when == frame) return from;
  return mix(from, texelFetch(u_positions, spot(first + u_n), 0).xyz, when - frame);
}
float age(int i) { return clamp(u_at - born(i) + 1.0, 0.0, 1.0); }
void stand(vec3 here, float alpha) {
  gl_Position = u_project * vec4(here, 1.0);
  if (alpha <= 0.004 || abs(here.x) > 1e20) gl_Position = vec4(9.0, 9.0, 9.0, 1.0);
}
`;

// Lines of one frame. With u_k 0 the ends of each line are given both, and of all frames.
export const LINE_VERTEX = `${NUMBERS}${PLACES}
uniform sampler2D u_shades;
uniform isampler2D u_ends;
uniform sampler2D u_palette;
uniform int u_k;
uniform int u_frame;
uniform float u_alpha;
uniform bool u_gaps;
uniform vec3 u_accent;
out vec4 v_color;
void main() {
  int line = gl_VertexID / 2;
  int i;
  int j;
  float alpha = u_alpha;
  vec3 shade = u_accent;
  if (u_k > 0) {
    i = line / u_k;
    int place = line + u_frame * u_n * u_k;
    j = texelFetch(u_ends, spot(place), 0).r;
    int index = int(texelFetch(u_shades, spot(place), 0).r * 255.0 + 0.5);
    shade = texelFetch(u_palette, ivec2(index, 0), 0).rgb;
  } else {
    i = texelFetch(u_ends, spot(2 * line), 0).r;
    j = texelFetch(u_ends, spot(2 * line + 1), 0).r;
  }
  if (j < 0 || i < 0) {
    stand(vec3(0.0), 0.0);
    return;
  }
  alpha *= min(emphasis(i), emphasis(j)) * min(age(i), age(j));
  v_color = vec4(shade * alpha, alpha);
  bool isFirst = gl_VertexID % 2 == 0;
  // Without either end there is no line. It costs as much again, so only where positions are missing.
  if (u_gaps && abs(placeAt(isFirst ? j : i, u_at).x) > 1e20) alpha = 0.0;
  stand(placeAt(isFirst ? i : j, u_at), alpha);
}`;

// Where each point was: from now back to u_reach frames ago, paler and paler.
export const TRAIL_VERTEX = `${NUMBERS}${PLACES}
uniform sampler2D u_values;
uniform sampler2D u_palette;
uniform int u_pieces;
uniform float u_reach;
uniform float u_alpha;
uniform bool u_framed;
out vec4 v_color;
void main() {
  int line = gl_VertexID / 2;
  int i = line / u_pieces;
  int knot = line % u_pieces + gl_VertexID % 2;
  float oldest = max(u_at - u_reach, 0.0);
  float at = knot == 0 ? u_at : max(ceil(u_at) - float(knot), oldest);
  vec3 here = placeAt(i, at);
  // Of the frame that it comes from, as the point's own.
  int frame = u_framed ? int(max(floor(at), born(i))) : 0;
  int index = int(texelFetch(u_values, spot(frame * u_n + i), 0).r * 255.0 + 0.5);
  float alpha = u_alpha * emphasis(i) * age(i) * (1.0 - (u_at - at) / u_reach);
  v_color = vec4(texelFetch(u_palette, ivec2(index, 0), 0).rgb * alpha, alpha);
  // The oldest end has no colour left, but a place.
  stand(here, emphasis(i) * age(i));
}`;

export const LINE_FRAGMENT = `#version 300 es
precision mediump float;
in vec4 v_color;
out vec4 color;
void main() { color = v_color; }`;
