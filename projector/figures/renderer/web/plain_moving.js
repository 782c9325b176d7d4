// Points that move, on a plain canvas, where there is no WebGL: slower, and nothing is missing.

import { placed } from "./camera.js";
import { isDark, rgb } from "./colors.js";
import { ACCENT } from "./emphasis.js";
import { STRENGTH } from "./line_program.js";
import { lineColors } from "./neighbour_lines.js";
import { paintDiscs } from "./plain_points.js";

const SHADES = 16; // Lines of so many colours: each is one path.

export const paintMoving = (moving, scene) => {
  const { pen, data } = moving;
  const { at, box, colors, ratio, largest } = scene;
  pen.setTransform(1, 0, 0, 1, 0, 0);
  pen.clearRect(0, 0, pen.canvas.width, pen.canvas.height);
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  const places = Array.from({ length: data.nPoints }, (_, i) => moving.placeOf(i, at, box));
  pen.lineWidth = 1;
  if (scene.lines) paintNeighbours(pen, data, scene, places);
  if (scene.pairs) paintPartners(pen, data, colors, places);
  if (scene.trails > 0) paintTrails(pen, moving, scene, places);
  pen.globalAlpha = 1;
  const accent = rgb(colors.mark);
  const found = [];
  places.forEach((place, i) => {
    if (!place) return;
    const shade = 3 * valueAt(data, i, scene);
    const emphasis = data.emphasis[i];
    const own = emphasis === ACCENT ? accent : data.palette.subarray(shade, shade + 3);
    found.push({ at: place, own, size: data.sizes[i] / 255, emphasis });
  });
  paintDiscs(pen, found, box, largest, rgb(colors.page));
};

const valueAt = ({ values, nPoints, born }, i, { frame, share }) => {
  if (values.length === nPoints) return values[i];
  const first = values[Math.max(frame, born[i]) * nPoints + i];
  return share > 0 && frame >= born[i]
    ? Math.round(first + (values[(frame + 1) * nPoints + i] - first) * share)
    : first;
};

const css = (palette, index) => `rgb(${palette.subarray(3 * index, 3 * index + 3).join(",")})`;

// Of the frame that is nearer in time.
const paintNeighbours = (pen, data, { at, colors }, places) => {
  const { k, ends, shades } = data.lines;
  const palette = lineColors(isDark(colors.page));
  const first = Math.round(at) * data.nPoints * k;
  const paths = Array.from({ length: SHADES }, () => new Path2D());
  for (let line = 0; line < data.nPoints * k; line++) {
    const [from, to] = [places[Math.floor(line / k)], places[ends[first + line]]];
    if (!from || !to) continue;
    const path = paths[Math.floor((shades[first + line] * SHADES) / 256)];
    path.moveTo(from.x, from.y);
    path.lineTo(to.x, to.y);
  }
  pen.globalAlpha = STRENGTH.lines;
  paths.forEach((path, shade) => {
    pen.strokeStyle = css(palette, Math.floor(((shade + 0.5) * 256) / SHADES));
    pen.stroke(path);
  });
};

const paintPartners = (pen, { pairs }, colors, places) => {
  pen.globalAlpha = STRENGTH.pairs;
  pen.strokeStyle = colors.mark;
  pen.beginPath();
  for (let at = 0; at < pairs.length; at += 2) {
    const [from, to] = [places[pairs[at]], places[pairs[at + 1]]];
    if (!from || !to) continue;
    pen.moveTo(from.x, from.y);
    pen.lineTo(to.x, to.y);
  }
  pen.stroke();
};

const paintTrails = (pen, moving, scene, places) => {
  const { data } = moving;
  const { at, box, trails } = scene;
  const oldest = Math.max(at - trails, 0);
  places.forEach((place, i) => {
    if (!place) return;
    pen.strokeStyle = css(data.palette, valueAt(data, i, scene));
    pen.globalAlpha = (STRENGTH.trails / 2) * (data.emphasis[i] / 255);
    pen.beginPath();
    pen.moveTo(place.x, place.y);
    for (let when = Math.ceil(at) - 1; when > oldest - 1; when--) {
      const before = moving.positionOf(i, Math.max(when, oldest, data.born[i]));
      const to = before && placed(box, ...before);
      if (to) pen.lineTo(to.x, to.y);
    }
    pen.stroke();
  });
};
