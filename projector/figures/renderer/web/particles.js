// Particles in frames: the arrays that the page was given, and what belongs to which token.

import { bytes } from "./store.js";

const NONE = 65535; // Of two bytes.

export class Particles {
  constructor(data) {
    this.n = data.n_points;
    this.nFrames = data.n_frames;
    this.k = data.k;
    this.nSums = data.n_sums;
    this.born = Int16Array.from(bytes(data.born, Int32Array));
    this.positions = this.everywhere(data, data.positions, 3);
    this.norms = this.everywhere(data, data.norms, 1);
    this.displacements = this.everywhere(data, data.displacements, 1);
    this.placeStill(data);
    this.readLines(data);
    this.prompt = bytes(data.owner_prompt, Int32Array);
    this.token = bytes(data.owner_token, Int32Array);
    this.part = bytes(data.owner_part, Int32Array);
    this.pairs = bytes(data.pairs, Int32Array);
    this.isCode = data.particles === "autoencoder";
    this.ofToken = new Map(); // "prompt token" → its particles, of which the last one stands for it.
    for (let i = 0; i < this.n; i++) {
      if (this.token[i] < 0) continue;
      const key = `${this.prompt[i]} ${this.token[i]}`;
      if (!this.ofToken.has(key)) this.ofToken.set(key, []);
      this.ofToken.get(key).push(i);
    }
    this.partners = new Map(); // particle → the one of the other prompt that belongs to it.
    for (let p = 0; p < this.pairs.length; p += 2) {
      this.partners.set(this.pairs[p], this.pairs[p + 1]);
      this.partners.set(this.pairs[p + 1], this.pairs[p]);
    }
  }

  // (F, N, width): what moves has numbers in each frame, and comes behind what stays where it is.
  everywhere({ n_still: nStill }, text, width) {
    const given = bytes(text, Float32Array);
    if (!nStill) return given;
    const found = new Float32Array(this.nFrames * this.n * width);
    const nMoving = (this.n - nStill) * width;
    for (let frame = 0; frame < this.nFrames; frame++)
      found.set(
        given.subarray(frame * nMoving, (frame + 1) * nMoving),
        (frame * this.n + nStill) * width,
      );
    return found;
  }

  // What stays where it is from its birth on.
  placeStill({ n_still: nStill, from_origin: fromOrigin, still_positions, still_norms }) {
    const places = bytes(still_positions, Float32Array);
    const norms = bytes(still_norms, Float32Array);
    for (let frame = 0; frame < this.nFrames; frame++)
      for (let i = 0; i < nStill; i++) {
        const at = frame * this.n + i;
        const age = frame - this.born[i];
        if (age >= 0 || !fromOrigin) this.positions.set(places.subarray(3 * i, 3 * i + 3), 3 * at);
        this.norms[at] = age >= 0 ? norms[i] : NaN;
        this.displacements[at] = age > 0 ? 0 : NaN;
      }
  }

  // Neighbours and distances of what is there; −1 and NaN for none.
  readLines({ neighbours, distances, distances_max: most }) {
    const { n, nFrames, nSums, k } = this;
    const nGiven = n - nSums;
    const near = bytes(neighbours, nGiven < NONE ? Uint16Array : Uint32Array);
    const far = bytes(distances, Uint16Array);
    this.neighbours = new Int32Array(nFrames * n * k).fill(-1);
    this.distances = new Float32Array(nFrames * n * k).fill(NaN);
    let from = 0;
    for (let frame = 0; frame < nFrames; frame++)
      for (let i = 0; i < nGiven; i++) {
        if (this.born[i] > frame) continue;
        const to = (frame * n + i) * k;
        for (let rank = 0; rank < k; rank++, from++) {
          if (near[from] < nGiven) this.neighbours[to + rank] = near[from];
          if (far[from] < NONE) this.distances[to + rank] = most * (far[from] / (NONE - 1)) ** 2;
        }
      }
  }

  // A byte each: sums are larger than what they are sums of.
  sizes() {
    return new Uint8Array(this.n).fill(70).fill(230, this.n - this.nSums);
  }

  allOf(prompt, token) {
    return this.ofToken.get(`${prompt} ${token}`) || [];
  }

  // The particle that stands for a token; −1 for none.
  of(prompt, token) {
    const all = this.allOf(prompt, token);
    return all.length ? all[all.length - 1] : -1;
  }

  isThere(frame, i) {
    return this.born[i] <= frame && Number.isFinite(this.positions[3 * (frame * this.n + i)]);
  }
}

// What the lens predicts: of each prompt texts, and for each frame and token which it is.
export class LensWords {
  constructor(predictions, prompts, nFrames) {
    this.given = (predictions || []).map(({ texts, index, probability }, prompt) => ({
      texts,
      index: bytes(index, Int32Array),
      probability: bytes(probability, Float32Array),
      n: prompts[prompt].tokens.length,
    }));
    this.nFrames = nFrames;
  }

  // { text, probability } in a frame, or null.
  at(prompt, frame, token) {
    const found = this.given[prompt];
    if (!found || token < 0) return null;
    const place = frame * found.n + token;
    const k = found.index[place];
    return k >= 0 ? { text: found.texts[k], probability: found.probability[place] } : null;
  }
}
