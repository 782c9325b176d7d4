// What is in front and what is pale: one byte a neuron, from hidden (0) to full (255).

export const ACCENT = 254; // Full, and in the colour of the choice instead of its own.
const NOISE = 110;
const WEAK = 185;
const BEHIND = 0.45; // What is left of the rest where something is chosen,
const LEAST = 66; // but never less than this.

// `focus`: the group that is pointed at, if any; else the chosen one counts.
export const emphasisOf = (panel, n, focus) => {
  const found = new Uint8Array(n).fill(255);
  if (panel.only) {
    found.fill(0);
    for (const i of [panel.selected, ...panel.near.map(([near]) => near)])
      if (i !== null && i < n) found[i] = 255;
    return found;
  }
  if (panel.frames) return found;
  const { groups, membership } = panel;
  if (membership && panel.byGroup)
    for (let i = 0; i < n; i++) {
      const group = groups[membership[i]];
      found[i] = !group ? NOISE : group.state === "weak" ? WEAK : 255;
    }
  const group = focus !== null ? focus : panel.group;
  const hasGroup = group !== null && membership && group < groups.length;
  const chosen = new Set(panel.marked);
  for (const [i] of panel.near) chosen.add(i);
  if (panel.selected !== null && panel.near.length) chosen.add(panel.selected);
  if (!hasGroup && !chosen.size) return found;
  // Colours that several groups share tell one apart no longer: then it has the choice's own.
  const full = hasGroup && panel.byGroup && groups[group].shared ? ACCENT : 255;
  for (let i = 0; i < n; i++) {
    if (hasGroup && membership[i] === group) found[i] = full;
    else if (chosen.has(i)) found[i] = 255;
    else found[i] = Math.max(LEAST, Math.round(found[i] * BEHIND));
  }
  return found;
};
