"""Sequences of token ids, and the batches that a model processes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """A batch of sequences, padded on the right to the longest.

    ``input_ids`` and ``attention_mask`` are (B, T) int64; ``keep`` (B, T) bool marks the tokens
    that count; ``first`` is the index of the first sequence within the corpus.
    """

    input_ids: Tensor
    attention_mask: Tensor
    keep: Tensor
    first: int

    @property
    def n_tokens(self) -> int:
        return int(self.keep.sum())


@dataclass(frozen=True)
class Corpus:
    """Tokenized sequences, drawn evenly from a source.

    Attributes:
        source: the source as the user wrote it; for a file, its name without the path.
        sha256: hash of the documents that were read.
        ids: token ids of all sequences end to end, int32.
        starts: (n_sequences + 1,) int64, where each sequence starts in ``ids``, and the end of the
            last.
        skip_first: number of positions at the start of each sequence that don't count.
        n_tokens: number of tokens that count.
        n_available: number of tokens that would count without ``max_tokens``.
        notes: remarks for the user, about texts that were cut and windows that were drawn.
    """

    source: str
    sha256: str
    ids: np.ndarray
    starts: np.ndarray
    skip_first: int
    n_tokens: int
    n_available: int
    pad_id: int
    notes: tuple[str, ...]

    @property
    def n_sequences(self) -> int:
        return len(self.starts) - 1

    @cached_property
    def distinct(self) -> np.ndarray:
        """The distinct token ids, int64, ascending."""
        return np.flatnonzero(np.bincount(self.ids))

    @property
    def n_distinct(self) -> int:
        """The number of distinct token ids."""
        return len(self.distinct)

    @cached_property
    def ids_sha256(self) -> str:
        """SHA-256 of the token ids and the starts of the sequences."""
        parts = hashlib.sha256(np.ascontiguousarray(self.ids).data)
        parts.update(np.ascontiguousarray(self.starts).data)
        return parts.hexdigest()

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Yield the sequences in order, ``batch_size`` at a time."""
        for first in range(0, self.n_sequences, batch_size):
            bounds = self.starts[first : first + batch_size + 1]
            lengths = torch.from_numpy(np.diff(bounds))
            longest = int(lengths.max())
            place = torch.arange(longest)
            mask = place < lengths[:, None]
            ids = torch.full(mask.shape, self.pad_id, dtype=torch.int64)
            ids[mask] = torch.from_numpy(self.ids[bounds[0] : bounds[-1]].astype(np.int64))
            yield Batch(ids, mask.long(), mask & (place >= self.skip_first), first)
