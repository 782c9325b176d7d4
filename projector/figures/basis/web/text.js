// Numbers and tokens as they are read, and elements. All text is set as text.

export const fixed = (value, digits = 2) => {
  const text = Math.abs(value) >= 1e4 ? value.toExponential(1) : value.toFixed(digits);
  return (Number(text) === 0 ? text.replace("-", "") : text).replaceAll("-", "−");
};

// With two figures where it is small, so that what is not 0 does not read as 0.
export const short = (value) =>
  value === 0 || Math.abs(value) >= 0.1 ? fixed(value) : value.toPrecision(2).replaceAll("-", "−");

export const percent = (share) => `${fixed(100 * share, 100 * share < 9.95 ? 1 : 0)}\u00a0%`;

export const make = (name, className, text) => {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = String(text);
  return made;
};

// A token, with spaces that can be seen.
export function labelOf(text) {
  const shown = String(text).replaceAll("\n", "⏎").replaceAll("\t", "⇥").replaceAll(" ", "␣");
  return shown.length > 16 ? `${shown.slice(0, 15)}…` : shown;
}
