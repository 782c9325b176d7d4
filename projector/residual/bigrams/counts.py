"""Bigram counts of a corpus."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from projector.corpus.batches import Corpus
from projector.errors import UserError


@dataclass(frozen=True, eq=False)
class Bigrams:
    """How often token b follows token a.

    Pairs are sorted by a, then b. All arrays are int64.

    Attributes:
        first: (F,), the distinct a, ascending.
        starts: (F + 1,), where the pairs of each a start, and the end of the last.
        second: (P,), b of each pair.
        counts: (P,), how often each pair occurs.
    """

    first: np.ndarray
    starts: np.ndarray
    second: np.ndarray
    counts: np.ndarray

    @classmethod
    def of_corpus(cls, corpus: Corpus) -> Bigrams:
        """Count the pairs of consecutive tokens within each sequence, where a is a token that
        counts.

        Raises:
            UserError: if there are no pairs.
        """
        place = np.arange(len(corpus.ids)) - np.repeat(corpus.starts[:-1], np.diff(corpus.starts))
        # The next token must belong to the same sequence: its place is one further.
        has_next = np.append(place[1:] > 0, False) & (place >= corpus.skip_first)
        at = np.flatnonzero(has_next)
        if not len(at):
            raise UserError(
                f"corpus '{corpus.source}' has no two consecutive tokens to count: give more text"
            )
        return cls.of_pairs(corpus.ids[at], corpus.ids[at + 1])

    @classmethod
    def of_pairs(cls, a: np.ndarray, b: np.ndarray) -> Bigrams:
        """Count pairs, (N,) integers each; N is at least 1."""
        pairs, counts = np.unique(
            np.stack([a, b], axis=1).astype(np.int64), axis=0, return_counts=True
        )
        first, starts = np.unique(pairs[:, 0], return_index=True)
        return cls(first, np.append(starts, len(pairs)), pairs[:, 1].copy(), counts)

    @property
    def n(self) -> int:
        """The total number of bigrams, with repetitions."""
        return int(self.counts.sum())

    @property
    def first_counts(self) -> np.ndarray:
        """How often each a is followed by a token, (F,)."""
        return np.add.reduceat(self.counts, self.starts[:-1])

    @property
    def rows(self) -> np.ndarray:
        """The index in ``first`` of each pair's a, (P,)."""
        return np.repeat(np.arange(len(self.first)), np.diff(self.starts))

    @property
    def most_frequent(self) -> np.ndarray:
        """Whether no other token follows a more often than b, (P,) bool."""
        most = np.maximum.reduceat(self.counts, self.starts[:-1])
        is_most: np.ndarray = self.counts == most[self.rows]
        return is_most

    @property
    def entropy(self) -> float:
        """H(b | a) of the counted pairs, in nats per token."""
        share = self.counts / self.first_counts[self.rows]
        return float(-(self.counts * np.log(share)).sum() / self.n)

    @property
    def most_frequent_next(self) -> np.ndarray:
        """The token that follows each a most often, (F,); for ties, the lowest id."""
        found = np.flatnonzero(self.most_frequent)
        _, at = np.unique(self.rows[found], return_index=True)
        most: np.ndarray = self.second[found[at]]
        return most

    def unigram(self) -> tuple[np.ndarray, np.ndarray]:
        """The distinct b, ascending, and how often each follows any token."""
        tokens, which = np.unique(self.second, return_inverse=True)
        return tokens, np.bincount(which, weights=self.counts).astype(np.int64)

    def shuffled(self, generator: np.random.Generator) -> Bigrams:
        """Shuffle the second tokens: the same tokens and counts, but each b follows a random a."""
        a = np.repeat(self.first[self.rows], self.counts)
        b = np.repeat(self.second, self.counts)
        return Bigrams.of_pairs(a, generator.permutation(b))
