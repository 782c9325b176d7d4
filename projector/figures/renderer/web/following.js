// A view whose scale follows the frames, about a centre that stays.

// Slopes at each value, so that between two of them the curve stays between both (Fritsch and Carlson
// 1980): the harmonic mean of the slopes at both sides, or 0 where it turns.
const slopesOf = (values) =>
  values.map((value, k) => {
    const before = k ? value - values[k - 1] : 0;
    const after = k < values.length - 1 ? values[k + 1] - value : 0;
    return before * after > 0 ? (2 * before * after) / (before + after) : 0;
  });

export class Following {
  // `middle` and `reach` of the widest view; `magnified`: by how much each frame is larger.
  constructor({ middle, reach, magnified }) {
    Object.assign(this, { middle, reach, magnified });
    this.levels = magnified.map(Math.log);
    this.slopes = slopesOf(this.levels);
  }

  // Whether some frames are so much wider than most that these would be a dot without it.
  get isNeeded() {
    const sorted = [...this.magnified].sort((a, b) => a - b);
    return sorted[sorted.length >> 1] > 2.5;
  }

  // By how much it is magnified at a time between two frames; it changes smoothly.
  magnifiedAt(at) {
    const { levels, slopes } = this;
    const from = Math.min(Math.floor(at), levels.length - 1);
    const to = Math.min(from + 1, levels.length - 1);
    const t = at - from;
    const rest = 1 - t;
    return Math.exp(
      levels[from] * (1 + 2 * t) * rest * rest +
        slopes[from] * t * rest * rest +
        levels[to] * t * t * (3 - 2 * t) -
        slopes[to] * t * t * rest,
    );
  }

  boxAt(at) {
    const by = this.magnifiedAt(at);
    return { middle: this.middle, reach: this.reach.map((each) => each / by) };
  }
}
