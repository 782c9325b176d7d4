// All of a map that WebGL does not draw: the frame below the points, marks and text above them.

import { paintAxes } from "./axes.js";
import { emphasisOf } from "./emphasis.js";
import { Labels } from "./labels.js";
import { paintLoop, paintMarks } from "./marks.js";
import { paintPoints } from "./plain_points.js";
import { nNeurons } from "./points.js";

// Draws all maps of `map`, and gives the names that it found room for.
export const paintMaps = (map, room) => {
  const { under, overlay } = map.stage;
  const [below, above] = [map.stage.pen(under, room), map.stage.pen(overlay, room)];
  const names = map.panels.flatMap((panel, i) => paintPanel(map, panel, i, below, above));
  paintLoop(above, map.loop, map.colors);
  return names;
};

const paintPanel = (map, panel, i, below, above) => {
  const box = map.boxes[i];
  const { axes } = map.data;
  box.matrix = map.camera.matrix(panel, box, axes !== null);
  const focus = map.focused && map.focused.panel === i ? map.focused.group : null;
  if (!panel.emphasis || panel.focus !== focus) {
    panel.emphasis = emphasisOf(panel, nNeurons(panel), focus);
    panel.focus = focus;
  }
  for (const pen of [below, above]) {
    pen.save();
    pen.beginPath();
    pen.rect(box.left, 0, box.width, box.height);
    pen.clip();
  }
  if (axes !== null) paintAxes(below, panel, box, axes, map.colors.text);
  if (i) paintSeam(below, box, map.colors.text);
  if (!map.points.gl && panel.positions) paintPoints(above, panel, box, map.drawing());
  const names = paintTexts(map, panel, box, above, focus === null ? panel.group : focus);
  below.restore();
  above.restore();
  return names;
};

// Its title, its marks and its names, of which none lies over another.
const paintTexts = (map, panel, box, pen, chosen) => {
  const { colors } = map;
  const labels = new Labels(pen, colors);
  paintTitle(map, panel, box, pen, labels);
  if (!panel.positions) {
    pen.font = `13px ${colors.font}`;
    pen.fillText("waiting for positions …", box.left + 12, 42);
    return [];
  }
  const at = paintMarks(pen, panel, box, colors);
  const { zoom } = map.camera;
  if (at) {
    const name = `${panel.name} N${panel.selected}`;
    const label = panel.texts && panel.texts.labels[panel.selected];
    labels.put(box, label ? `${name}  ${label}` : name, at, {
      font: `600 12px ${colors.font}`,
      rim: colors.mark,
      offsets: [
        [0, -26],
        [0, 26],
        [70, 0],
        [-70, 0],
      ],
    });
    labels.neurons(panel, box, { zoom, among: panel.near.map(([i]) => i) });
  }
  if (!panel.only)
    labels.groups(panel, box, {
      chosen,
      zoom,
      colorOf: (group, isChosen) => map.colorOf(panel, group, isChosen),
    });
  labels.neurons(panel, box, { zoom });
  return labels.texts;
};

const paintTitle = (map, panel, box, pen, labels) => {
  pen.globalAlpha = 1;
  pen.fillStyle = map.colors.text;
  pen.font = `600 13px ${map.colors.font}`;
  // Alone, a map is told by the page.
  const title = map.panels.length > 1 || map.timeline.nTokens || map.saving ? panel.title : "";
  // The last map has the buttons above it: a title that would lie under them stands below them.
  const isLast = box.left + box.width > map.stage.place.clientWidth - 1;
  const wanted = pen.measureText(title).width + 30 + map.stage.tools.offsetWidth;
  const isUnder = isLast && !map.saving && wanted > box.width;
  pen.fillText(title, box.left + 12, isUnder ? 58 : 22, box.width - 20);
  const width = pen.measureText(title).width + 20;
  labels.take({ x: box.left, y: 0, width, height: isUnder ? 66 : 28 });
  labels.take({ x: box.left + box.width - 170, y: 0, width: 170, height: 40 });
};

const paintSeam = (pen, box, color) => {
  pen.strokeStyle = color;
  pen.globalAlpha = 0.12;
  pen.beginPath();
  pen.moveTo(box.left + 0.5, 0);
  pen.lineTo(box.left + 0.5, box.height);
  pen.stroke();
  pen.globalAlpha = 1;
};
