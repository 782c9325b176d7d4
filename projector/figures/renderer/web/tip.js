// What a neuron tells when it is pointed at.

import { element, signed } from "./store.js";
import { valuesAt } from "./points.js";

export const tipOf = (panel, neuron, token) => {
  const lines = [["name", `${panel.name} N${neuron}`]];
  const { texts, membership, groups } = panel;
  if (texts && texts.labels[neuron]) lines.push(["label", texts.labels[neuron]]);
  if (texts && texts.snippets && texts.snippets[neuron])
    lines.push(["snippet", texts.snippets[neuron]]);
  if (panel.frames) {
    // Of a byte: about, and beyond the scale no more than that.
    const level = valuesAt(panel, token)[neuron];
    const value = signed(((level / 127) * panel.scale).toPrecision(2));
    const sign = level === 127 ? "≥" : level === -127 ? "≤" : "≈";
    lines.push(["", `${panel.value_label || "activation"} ${sign} ${value}`]);
  }
  const near = panel.near.find(([i]) => i === neuron);
  if (near) lines.push(["", `ρ = ${signed(near[1].toFixed(2))} with N${panel.selected}`]);
  if (membership) {
    const group = groups[membership[neuron]];
    lines.push(["", membership[neuron] < 0 ? "in no pole" : group ? group.title : ""]);
  }
  for (const each of panel.hoverValues) {
    const value = each.values ? each.values[neuron] : null;
    if (value === null || Number.isNaN(value)) continue;
    const text = each.names
      ? each.names[value]
      : Number.isInteger(value)
        ? String(value)
        : value.toPrecision(3);
    if (text !== undefined) lines.push(["", [each.label, signed(text)].filter(Boolean).join(" ")]);
  }
  return lines.filter(([, text]) => text).map(([kind, text]) => element("div", kind, text));
};
