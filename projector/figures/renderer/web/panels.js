// A map as it is drawn, from what the server sends of it.

import { middlesOf } from "./labels.js";
import { bytes, keep, kept } from "./store.js";

// `old`: the map that was in its place; `missing` gets the ids of what was not sent and is not kept.
export const panelOf = (given, old, missing) => {
  const found = (id, sent, read) => {
    if (!id) return null;
    if (sent) keep(id, read(sent));
    if (!kept(id)) missing.push(id);
    return kept(id) || null;
  };
  const positions = found(given.positions_id, given.positions, (sent) => bytes(sent, Float32Array));
  const values = given.frames
    ? found(given.values_id, given.values, (sent) => bytes(sent, Int8Array))
    : bytes(given.values, Uint8Array);
  const membership = found(given.membership_id, given.membership, (sent) =>
    bytes(sent, Int16Array),
  );
  const texts = found(given.texts_id, given.texts, (sent) => ({
    ...sent,
    nBytes:
      2 * [...sent.labels, ...(sent.snippets || [])].reduce((sum, text) => sum + text.length, 0),
  }));
  const same = old && positions && old.positions === positions;
  const panel = {
    ...given,
    positions: values && positions,
    values,
    membership,
    texts,
    groups: membership ? given.groups : [],
    byGroup: given.by_group,
    only: given.isolated,
    pointed: null,
    sizes: given.sizes ? bytes(given.sizes, Uint8Array) : null,
    hoverValues: (given.hover || []).map((each) => ({
      ...each,
      values: each.values ? bytes(each.values, Float32Array) : null,
    })),
    // Positions that stay are on the device already.
    buffers: same ? old.buffers : null,
    emphasis: null,
  };
  if (panel.buffers) panel.buffers.fresh = false;
  if (panel.positions && membership) {
    const isKnown =
      same && old.membership === membership && old.groups.length === panel.groups.length;
    panel.middles = isKnown ? old.middles : middlesOf(positions, membership, panel.groups.length);
  }
  return panel;
};

// The ids of all that a map needs.
export const idsOf = (given) =>
  [given.positions_id, given.values_id, given.membership_id, given.texts_id].filter(Boolean);

// How many of its neurons are lit, and how many are seen at all.
export const countOf = (panel) => {
  if (panel.counted !== panel.emphasis) {
    let [lit, seen] = [0, 0];
    for (const each of panel.emphasis || []) {
      if (each) seen += 1;
      if (each >= 254) lit += 1;
    }
    Object.assign(panel, { counted: panel.emphasis, lit, seen });
  }
  return panel;
};
