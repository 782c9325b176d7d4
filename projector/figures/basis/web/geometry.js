// Vectors and 2 × 2 matrices, given by their rows.

export const times = ([[a, b], [c, d]], [x, y]) => [a * x + b * y, c * x + d * y];
export const mix = (p, q, t) => [p[0] + (q[0] - p[0]) * t, p[1] + (q[1] - p[1]) * t];
export const clamp = (x, low, high) => Math.max(low, Math.min(high, x));
export const inOrthant = (points) =>
  points.filter(([x, y]) => x > 0 && y > 0).length / points.length;

export function determinant([[a, b], [c, d]]) {
  return a * d - b * c;
}

// The larger one first.
export function singularValues([[a, b], [c, d]]) {
  const sum = Math.hypot(a + d, c - b);
  const difference = Math.hypot(a - d, b + c);
  return [(sum + difference) / 2, Math.abs(sum - difference) / 2];
}

// A part t of a matrix: a turn by a part of the angle and a part of the stretch, where it turns.
export function partOf([[a, b], [c, d]], t) {
  const part = ([[p, q], [r, s]]) => [
    [1 + t * (p - 1), t * q],
    [t * r, 1 + t * (s - 1)],
  ];
  if (a * d - b * c <= 0)
    return part([
      [a, b],
      [c, d],
    ]);
  const angle = Math.atan2(c - b, a + d);
  const [x, y] = [Math.cos(angle), Math.sin(angle)];
  const [[p, q], [r, s]] = part([
    [x * a + y * c, x * b + y * d],
    [x * c - y * a, x * d - y * b],
  ]);
  const [u, v] = [Math.cos(t * angle), Math.sin(t * angle)];
  return [
    [u * p - v * r, u * q - v * s],
    [v * p + u * r, v * q + u * s],
  ];
}
