"""Token positions: in a batch, in the corpus, and among the tokens of the corpus that are kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from projector.corpus.batches import Batch, Corpus


@dataclass(frozen=True)
class CountedTokens:
    """Positions of the tokens that count in a batch, computed once for all maps.

    Attributes:
        shape: (B, T), the numbers of sequences and positions.
        kept: (n_kept,) int64, flat positions in the batch that count, ascending.
        n_before: number of tokens that count in earlier batches.
        numbers: (B,) int64, the index in the corpus of the first token of each sequence.
        first: (B,) int64, the first position of each sequence that counts; 0 if none does.
        is_empty: (B,) bool, sequences in which no token counts.
        stretch: the positions that count, if they are the same in all sequences; otherwise None.
        filled: (B·T,) int64, each position that counts as itself, and every other one as the first
            position of its sequence that counts; None if ``stretch`` is set.
    """

    shape: torch.Size
    kept: Tensor
    n_before: int
    numbers: Tensor
    first: Tensor
    is_empty: Tensor
    stretch: slice | None
    filled: Tensor | None

    @classmethod
    def of(cls, batch: Batch, starts: Tensor, n_before: int) -> CountedTokens:
        """The positions that count in one batch.

        Args:
            starts: (S + 1,) int64, where each sequence of the corpus starts.
            n_before: number of tokens that count in earlier batches.
        """
        keep = batch.keep
        n_rows, length = keep.shape
        first = keep.to(torch.uint8).argmax(dim=1)
        counts = keep.sum(dim=1)
        begin, end = int(first[0]), int(first[0] + counts[0])
        stretch, filled = None, None
        if (
            end > begin
            and bool(keep[:, begin:end].all())
            and int(counts.sum()) == n_rows * (end - begin)
        ):
            stretch = slice(begin, end)
        else:
            own = torch.arange(n_rows * length).view(n_rows, length)
            filled = torch.where(keep, own, own.gather(1, first[:, None])).reshape(-1)
        return cls(
            keep.shape,
            keep.reshape(-1).nonzero()[:, 0],
            n_before,
            starts[batch.first : batch.first + n_rows],
            first,
            counts == 0,
            stretch,
            filled,
        )

    def to(self, device: torch.device) -> CountedTokens:
        """Move to another device."""
        return CountedTokens(
            self.shape,
            self.kept.to(device),
            self.n_before,
            self.numbers.to(device),
            self.first.to(device),
            self.is_empty.to(device),
            self.stretch,
            None if self.filled is None else self.filled.to(device),
        )


def token_numbers(corpus: Corpus, counted: Tensor) -> Tensor:
    """Convert indices among the tokens that count to indices in the corpus.

    Args:
        counted: (M,) int64.

    Returns:
        (M,) int64.
    """
    counts = np.maximum(np.diff(corpus.starts) - corpus.skip_first, 0)
    ends = np.cumsum(counts)
    ranks = counted.numpy()
    sequence = np.searchsorted(ends, ranks, side="right")
    within = ranks - (ends[sequence] - counts[sequence])
    return torch.from_numpy(corpus.starts[sequence] + corpus.skip_first + within).long()


@dataclass(frozen=True, eq=False)
class KeptTokens:
    """The tokens of a corpus that are kept, and their new positions.

    Attributes:
        ids: (T',) int32, token ids.
        starts: (S' + 1,) int64, where each run of neighbouring tokens of one sequence starts,
            followed by T'.
        first: (S',) int64, the index in the corpus of the first token of each run.
    """

    ids: Tensor
    starts: Tensor
    first: Tensor

    @classmethod
    def whole(cls, corpus: Corpus) -> KeptTokens:
        """Keep all tokens."""
        starts = torch.from_numpy(corpus.starts.astype("int64"))
        return cls(torch.from_numpy(corpus.ids.astype("int32")), starts, starts[:-1])

    @classmethod
    def around(cls, corpus: Corpus, shown: Tensor, n_before: int, n_after: int) -> KeptTokens:
        """Keep the tokens around those that are shown, each within its sequence.

        Args:
            shown: int64, indices in the corpus, in any order and possibly repeated; negative
                entries are ignored.
        """
        at = shown[shown >= 0].unique().numpy()
        sequence = np.searchsorted(corpus.starts, at, side="right") - 1
        begin = np.maximum(corpus.starts[sequence], at - n_before)
        end = np.minimum(corpus.starts[sequence + 1], at + n_after + 1)
        # Both ascend: a stretch ends where the next begins behind it, or in another sequence.
        is_new = np.ones(len(at), dtype=bool)
        is_new[1:] = (begin[1:] > end[:-1]) | (sequence[1:] != sequence[:-1])
        first, last = begin[is_new], end[np.append(np.flatnonzero(is_new)[1:], len(at)) - 1]
        lengths = last - first
        starts = np.concatenate([[0], np.cumsum(lengths)])
        places = np.repeat(first - starts[:-1], lengths) + np.arange(starts[-1])
        return cls(
            torch.from_numpy(corpus.ids[places].astype("int32")),
            torch.from_numpy(starts.astype("int64")),
            torch.from_numpy(first.astype("int64")),
        )

    def moved(self, at: Tensor) -> Tensor:
        """The new positions of tokens, int32, from their indices in the corpus.

        An index of −1 stays −1.
        """
        stretch = (torch.searchsorted(self.first, at, right=True) - 1).clamp(min=0)
        return torch.where(at < 0, -1, self.starts[stretch] + at - self.first[stretch]).int()
