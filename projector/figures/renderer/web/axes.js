// The axes: of flat maps two, of others a floor and a pillar, all with ticks.

import { placed } from "./camera.js";

const tickStep = (extent) => {
  const rough = extent / 2;
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].map((k) => k * power).find((step) => step >= rough);
};

// Places in here are told from the middle of the points; what a tick says is the coordinate.
// Text has a rim of the colour `rim`, where something lies below it.
export const paintAxes = (pen, panel, box, axes, color, rim = null) => {
  const greatest = Math.max(...panel.reach) || 1;
  const reach = box.isFlat
    ? panel.reach.map((each) => each || greatest)
    : [greatest, greatest, greatest];
  const step = tickStep(greatest);
  const digits = Math.max(0, -Math.floor(Math.log10(step)));
  const ticks = panel.middle.map((middle, axis) => {
    const found = [];
    for (let k = Math.ceil((middle - reach[axis]) / step); k * step <= middle + reach[axis]; k++)
      found.push({ at: k * step - middle, value: k * step });
    return found;
  });
  const place = (x, y, z) => {
    const [mx, my, mz] = panel.middle;
    return placed(box, x + mx, y + my, z + mz);
  };
  pen.strokeStyle = color;
  pen.fillStyle = color;
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
  const letter = (said, x, y) => {
    if (rim) {
      const own = pen.globalAlpha;
      Object.assign(pen, { strokeStyle: rim, lineWidth: 3, lineJoin: "round", globalAlpha: 0.9 });
      pen.strokeText(said, x, y);
      Object.assign(pen, { strokeStyle: color, lineWidth: 1, globalAlpha: Math.max(own, 0.8) });
    }
    pen.fillText(said, x, y);
  };
  const text = (value) =>
    (Math.abs(value) < step / 2 ? 0 : value).toFixed(digits).replace("-", "−");
  if (box.isFlat) {
    // Numbers stand a few pixels outside, however far the map reaches.
    const [x, y] = reach;
    const write = (said, point, dx, dy, align, alpha = 0.6) => {
      const at = place(...point);
      if (!at) return;
      pen.font = "11px sans-serif";
      pen.textAlign = align;
      pen.globalAlpha = alpha;
      letter(said, Math.max(at.x + dx, box.left + (align === "right" ? 26 : 8)), at.y + dy);
    };
    for (const { at: t, value } of ticks[0]) {
      line([t, -y, 0], [t, y, 0], 0.08);
      write(text(value), [t, -y, 0], 0, 14, "center");
    }
    for (const { at: t, value } of ticks[1]) {
      line([-x, t, 0], [x, t, 0], 0.08);
      write(text(value), [-x, t, 0], -8, 0, "right");
    }
    line([-x, -y, 0], [x, -y, 0], 0.25);
    line([-x, -y, 0], [-x, y, 0], 0.25);
    write(axes[0], [0, -y, 0], 0, 30, "center", 0.75);
    write(axes[1], [-x, y, 0], 0, -12, "left", 0.75);
  } else {
    paintFloor(pen, box, { e: greatest, ticks, axes, place, line, text });
  }
  pen.textAlign = "left";
  pen.textBaseline = "alphabetic";
  pen.globalAlpha = 1;
};

const paintFloor = (pen, box, { e, ticks, axes, place, line, text }) => {
  // One axis: `at(t)` on its line, `away` the same a little outside of it.
  const axis = (name, marks, at, away, align, named = [away(0, 1.36)]) => {
    line(at(-e), at(e), 0.3);
    pen.textAlign = align;
    const say = (said, point, font, alpha) => {
      const found = place(...point);
      if (!found) return;
      pen.font = font;
      pen.globalAlpha = alpha;
      // Never farther left: the numbers of an axis are there.
      pen.fillText(
        said,
        Math.max(found.x, box.left + (pen.textAlign === "left" ? 8 : 24)),
        found.y,
      );
    };
    for (const { at: t, value } of marks) {
      line(at(t), away(t, 1.03), 0.3);
      say(text(value), away(t, 1.11), "11px sans-serif", 0.55);
    }
    say(name, ...named, "12px sans-serif", 0.7);
  };
  const [first, second, third] = axes;
  for (const { at: t } of ticks[0]) line([t, -e, -e], [t, -e, e], 0.08);
  for (const { at: t } of ticks[2]) line([-e, -e, t], [e, -e, t], 0.08);
  // Labels stand on the edges next to the eye, and beside the corner at the left.
  const depth = (x, z) => (place(x, -e, z) || { depth: 0 }).depth;
  const x = depth(e, 0) < depth(-e, 0) ? e : -e;
  const z = depth(0, e) < depth(0, -e) ? e : -e;
  line([-x, -e, -e], [-x, -e, e], 0.15);
  line([-e, -e, -z], [e, -e, -z], 0.15);
  const across = (px, pz) => (place(px, -e, pz) || { x: 0 }).x;
  const [px, pz] = across(x, -z) < across(-x, z) ? [x, -z] : [-x, z];
  axis(
    first,
    ticks[0],
    (t) => [t, -e, z],
    (t, out) => [t, -e, z * out],
    "center",
  );
  axis(
    third,
    ticks[2],
    (t) => [x, -e, t],
    (t, out) => [x * out, -e, t],
    "center",
  );
  // Inside, for there is no room at its left.
  const inside = (t, out) => [px * (2 - out), t, pz * (2 - out)];
  axis(second, ticks[1], (t) => [px, t, pz], inside, "left", [[px, 1.12 * e, pz]]);
};
