// The text next to the picture: numbers of the map, and shares, each with its control.

import { determinant, inOrthant, singularValues } from "./geometry.js";
import { fixed, make, percent, short } from "./text.js";

const ALIKE = 0.8; // A ratio of singular values from which a circle stays nearly one.

export function showFacts(place, scene) {
  place.replaceChildren();
  for (const [name, value] of factsOf(scene)) {
    const shown = make("dd");
    if (Array.isArray(value)) showSpectrum(shown, value);
    else shown.textContent = value;
    const line = make("div");
    line.append(make("dt", "", name), shown);
    place.append(line);
  }
}

// Names and what they are: a text, or the singular values.
function factsOf(scene) {
  const { data, matrix } = scene;
  const facts = [];
  if (scene.hasMatrix) {
    const drawn = singularValues(matrix);
    const isPart = !scene.isToy && data.is_same_plane;
    const values = scene.isToy ? drawn : data.singular_values;
    const name = scene.isToy || values.length < 3 ? "Singular values" : "Top singular values";
    facts.push([isPart ? `${name} of the map` : name, values]);
    if (isPart) facts.push(["Singular values of the 2 × 2 matrix drawn", drawn]);
    if (data.is_same_plane) {
      const found = determinant(matrix);
      const least = 1e-6 * drawn[0] ** 2;
      const turned =
        found < -least
          ? ": the plane is flipped"
          : Math.abs(found) <= least
            ? ": the plane collapses onto a line"
            : "";
      facts.push(["Determinant", `${short(found)}${turned}`]);
    } else if (drawn[1] > ALIKE * drawn[0]) {
      const both = drawn.map((value) => short(value)).join(" and ");
      facts.push([
        "Shape",
        `It hardly changes, because both directions are stretched about equally: by ${both}.`,
      ]);
    }
  }
  if (scene.isToy && data.points_before.length) {
    facts.push(["Points in the positive orthant before", percent(inOrthant(data.points_before))]);
    facts.push(["Points in the positive orthant after", percent(inOrthant(scene.pointsAfter))]);
    if (scene.hasReLU)
      facts.push([
        "What the ReLU does",
        "It moves every point outside the orthant onto the orthant's edge.",
      ]);
  } else if (data.kind === "neurons") {
    for (const [when, share] of [
      ["before", data.orthant_before],
      ["after", data.orthant_after],
    ])
      if (share && share.value !== null)
        facts.push([`Points in the positive orthant ${when}`, besides(share)]);
  }
  for (const arrow of data.arrows ?? []) facts.push([`Length: ${arrow.name}`, fixed(arrow.length)]);
  return facts;
}

function besides(share) {
  const control =
    share.control === null ? "" : ` (${share.control_name}: ${percent(share.control)})`;
  return percent(share.value) + control;
}

function showSpectrum(place, values) {
  place.append(
    make(
      "span",
      "numbers",
      values
        .slice(0, 4)
        .map((value) => short(value))
        .join("  "),
    ),
  );
  if (values.length < 3) return;
  const row = make("span", "spectrum");
  row.setAttribute("aria-hidden", "true");
  for (const [k, value] of values.entries()) {
    const bar = make("span", k < 2 ? "top" : "");
    bar.style.height = `${Math.max(1, (40 * value) / (values[0] || 1))}px`;
    bar.title = short(value);
    row.append(bar);
  }
  place.append(row);
}

// Paragraphs below the facts.
export function remarksOf({ notes, shares }) {
  return [
    ...(shares ?? []).map(shareLine),
    ...(notes ?? []).map((note) => make("p", "note", note)),
  ];
}

function shareLine(share) {
  const line = make("p", "share");
  const name = share.name.slice(0, 1).toUpperCase() + share.name.slice(1);
  if (share.value === null) {
    line.textContent = `${name}: not shown, because ${share.reason}`;
    return line;
  }
  line.append(make("span", "", `${name}: `), make("b", "", percent(share.value)));
  if (share.control !== null) {
    const has = share.control_low !== null && share.control_high !== null;
    const band = has
      ? ` (5–95 %: ${percent(share.control_low)} to ${percent(share.control_high)})`
      : "";
    line.append(
      make("span", "control", ` · ${share.control_name}: ${percent(share.control)}${band}`),
    );
  }
  return line;
}
