"""Choose which sequences of a corpus to use if it holds more tokens than requested."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Of the sequences drawn, the share that may prove to be past the budget; and how often to try.
_MOST_LEFT_OUT = 0.02
_MOST_TRIES = 10


@dataclass(frozen=True)
class Draw:
    """The chosen sequences of a corpus, in the order of the corpus.

    Attributes:
        chosen: (n,) int64, the indices of the sequences.
        lengths: (n,) int64, the number of tokens kept of each; the last sequence may be cut.
        n_tokens: number of tokens that count in these sequences.
        n_available: number of tokens that count in all sequences.
    """

    chosen: np.ndarray
    lengths: np.ndarray
    n_tokens: int
    n_available: int

    def of(self, flat: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """The concatenated tokens of the chosen sequences.

        Args:
            flat: the concatenated tokens of all sequences.
            lengths: (n,) int64, the number of tokens of each sequence.
        """
        bounds = np.concatenate([[0], np.cumsum(lengths)])
        return np.concatenate(
            [
                flat[bounds[i] : bounds[i] + n]
                for i, n in zip(self.chosen, self.lengths, strict=True)
            ]
        )


def draw(lengths: np.ndarray, skip_first: int, max_tokens: int | None) -> Draw:
    """Draw sequences at even steps until exactly ``max_tokens`` tokens count; None draws all.

    Sequences without a token that counts are left out.

    Args:
        lengths: (n,) int64, the number of tokens of each sequence.
        skip_first: number of positions at the start of each sequence that don't count.
    """
    counted = np.maximum(lengths - skip_first, 0)
    chosen, last_length = _draw(np.flatnonzero(counted), counted, max_tokens, skip_first)
    kept = lengths[chosen].copy()
    if last_length is not None:
        kept[-1] = last_length
    n_tokens = int(np.maximum(kept - skip_first, 0).sum())
    return Draw(chosen, kept, n_tokens, int(counted.sum()))


def _draw(
    usable: np.ndarray, counted: np.ndarray, max_tokens: int | None, skip_first: int
) -> tuple[np.ndarray, int | None]:
    """Which sequences to keep, and the length to cut the last of them to (None: whole).

    Drawn at even steps, as few as fill the budget: were more drawn, those at the end would be left
    out, and the end of the corpus with them.
    """
    if max_tokens is None or counted[usable].sum() <= max_tokens:
        return usable, None
    # Were all as long as the longest, this many would do; fewer never do.
    n_drawn = int(np.ceil(max_tokens / counted[usable].max()))
    chosen, least_left_out, n_tries = usable, 1.0, 0
    while least_left_out > _MOST_LEFT_OUT and n_tries < _MOST_TRIES:
        places = (np.arange(n_drawn) + 0.5) * len(usable) / n_drawn
        drawn = usable[places.astype(np.int64)]
        n_kept = int(np.searchsorted(np.cumsum(counted[drawn]), max_tokens)) + 1
        if n_kept <= n_drawn:
            # Steps that fall in with a pattern of lengths overshoot by far; the next ones do not.
            n_tries += 1
            if 1 - n_kept / n_drawn < least_left_out:
                chosen, least_left_out = drawn[:n_kept], 1 - n_kept / n_drawn
        if n_drawn == len(usable):
            break
        n_drawn = min(len(usable), n_drawn + max(1, n_drawn // 50))
    surplus = int(counted[chosen].sum()) - max_tokens
    if surplus <= 0:
        return chosen, None
    return chosen, int(counted[chosen[-1]]) + skip_first - surplus
