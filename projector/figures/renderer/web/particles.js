// Particles in frames: the arrays that the page was given, and what belongs to which token.

import { bytes } from "./store.js";

export class Particles {
  constructor(data) {
    this.n = data.n_points;
    this.nFrames = data.n_frames;
    this.k = data.k;
    this.positions = bytes(data.positions, Float32Array);
    this.norms = bytes(data.norms, Float32Array);
    this.displacements = bytes(data.displacements, Float32Array);
    this.born = Int16Array.from(bytes(data.born, Int32Array));
    this.neighbours = bytes(data.neighbours, Int32Array);
    this.distances = bytes(data.distances, Float32Array);
    this.prompt = bytes(data.owner_prompt, Int32Array);
    this.token = bytes(data.owner_token, Int32Array);
    this.part = bytes(data.owner_part, Int32Array);
    this.pairs = bytes(data.pairs, Int32Array);
    this.nSums = data.n_sums;
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
