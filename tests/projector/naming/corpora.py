"""Corpora of words with made-up neurons, for tests of labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from projector import Projection
from projector.corpus.pieces import Pieces
from projector.sites import map_name
from projector.statistics.example_facts import ExampleFacts
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


def with_examples(
    projection: Projection, words: Words, activations: Mapping[tuple[int, str], np.ndarray]
) -> Projection:
    """A projection whose neurons fire as told.

    Args:
        activations: (T, N) of each map; neurons of others never fire.
    """
    tensors: dict[str, torch.Tensor] = {}
    for layer, site in projection.maps:
        n_neurons = projection.figures(layer, site).n_neurons
        fires = activations.get((layer, site), np.zeros((len(words.ids), n_neurons)))
        examples = words.examples(fires)
        for name in ("highest", "lowest", "sample"):
            tensors[f"{map_name(layer, site)}.{name}"] = getattr(examples, name).contiguous()
        for name in ("highest_at", "lowest_at"):
            tensors[f"{map_name(layer, site)}.{name}"] = getattr(examples, name).int().contiguous()
        tensors |= {"ids": examples.ids, "starts": examples.starts}
        tensors["sample_at"] = examples.sample_at.int()
    facts = ExampleFacts(n_sample=len(tensors["sample_at"]), source="words")
    return replace(projection, example_tensors=tensors | words.pieces.state(), example_facts=facts)
