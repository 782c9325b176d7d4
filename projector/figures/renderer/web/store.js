// What this page of the browser keeps: numbers by their ids, so that they travel once.

const KEPT = new Map(); // id → typed array or texts, for all maps of this page.
const MOST_KEPT = 256e6; // Bytes.
const SHOWN = new Map(); // map → ids of what it shows.

export const bytes = (text, Type) => {
  const raw = atob(text);
  const buffer = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) buffer[i] = raw.charCodeAt(i);
  return new Type(buffer.buffer);
};

export const element = (name, className, text) => {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
};

// A number as it is set: with a minus, not a hyphen.
export const signed = (text) => text.replace("-", "−");

const sizeOf = (values) => values.byteLength || values.nBytes || 0;

export const keep = (id, values) => {
  KEPT.delete(id);
  KEPT.set(id, values);
  let size = 0;
  for (const each of KEPT.values()) size += sizeOf(each);
  for (const [oldest, each] of KEPT) {
    if (size <= MOST_KEPT) break;
    // What is shown has to stay: it would be asked for at once.
    if (oldest === id || [...SHOWN.values()].some((ids) => ids.has(oldest))) continue;
    KEPT.delete(oldest);
    size -= sizeOf(each);
  }
};

export const kept = (id) => KEPT.get(id);

export const shows = (map, ids) => SHOWN.set(map, new Set(ids));

export const showsNothing = (map) => SHOWN.delete(map);
