"""Corpora of words with made-up neurons, for tests of labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from projector.corpus.pieces import Pieces
from projector.statistics.examples import Examples


def pieces_of(texts: Sequence[str]) -> Pieces:
    """Pieces whose id i spells ``texts[i]``."""
    parts = [text.encode() for text in texts]
    return Pieces(
        torch.arange(len(parts)),
        torch.tensor(np.cumsum([len(part) for part in parts])),
        torch.tensor([byte for part in parts for byte in part], dtype=torch.uint8),
        torch.zeros(len(parts), dtype=torch.bool),
    )


class Words:
    """A corpus of sequences of words, and what neurons are that fire as told."""

    def __init__(self, vocabulary: Sequence[str], ids: np.ndarray, length: int = 20) -> None:
        self.vocabulary, self.ids, self.length = list(vocabulary), ids, length
        self.pieces = pieces_of(vocabulary)

    def where(self, *texts: str) -> np.ndarray:
        return np.isin(self.ids, [self.vocabulary.index(text) for text in texts])

    def examples(self, activations: np.ndarray, k: int = 10) -> Examples:
        """Of activations (T, N), as gathering gives them: at most one from a sequence."""
        n_sequences, n_neurons = len(self.ids) // self.length, activations.shape[1]
        starts = np.arange(n_sequences + 1) * self.length
        by_sequence = activations.reshape(n_sequences, self.length, n_neurons)
        ends = {}
        for sign in (1, -1):
            best = (sign * by_sequence).max(axis=1)
            at = (sign * by_sequence).argmax(axis=1) + starts[:-1, None]
            order = np.argsort(-best, axis=0, kind="stable")[:k]
            values = sign * np.take_along_axis(best, order, axis=0).T
            places = np.take_along_axis(at, order, axis=0).T
            ends[sign] = (
                torch.tensor(values, dtype=torch.float32),
                torch.tensor(places, dtype=torch.int64),
            )
        sample_at = np.arange(0, len(self.ids), 3)
        return Examples(
            ids=torch.tensor(self.ids, dtype=torch.int32),
            starts=torch.tensor(starts, dtype=torch.int64),
            highest=ends[1][0],
            highest_at=ends[1][1],
            lowest=ends[-1][0],
            lowest_at=ends[-1][1],
            sample_at=torch.tensor(sample_at),
            sample=torch.tensor(activations[sample_at], dtype=torch.float16),
        )
