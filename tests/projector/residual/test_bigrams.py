"""Bigrams of a corpus, and what predicts them, by numbers that are known beforehand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from projector.corpus.batches import Corpus
from projector.errors import UserError
from projector.residual.bigrams.counts import Bigrams
from projector.residual.bigrams.scores import BIGRAM, UNIGRAM, count_scores, predict, score


def corpus(*sequences: list[int], skip_first: int = 0) -> Corpus:
    lengths = [len(each) for each in sequences]
    return Corpus(
        source="made up",
        sha256="",
        ids=np.concatenate([np.array(each, dtype=np.int32) for each in sequences]),
        starts=np.concatenate([[0], np.cumsum(lengths)]),
        skip_first=skip_first,
        n_tokens=sum(lengths),
        n_available=sum(lengths),
        pad_id=0,
        notes=(),
    )


def test_neighbours_are_counted_within_their_sequence() -> None:
    bigrams = Bigrams.of_corpus(corpus([1, 2, 1, 2, 3], [2, 3, 3]))
    pairs = list(zip(bigrams.first[bigrams.rows], bigrams.second, bigrams.counts, strict=True))
    # 3 ends the first sequence: the 2 of the second does not follow it.
    assert pairs == [(1, 2, 2), (2, 1, 1), (2, 3, 2), (3, 3, 1)]
    assert bigrams.n == 6
    assert bigrams.first_counts.tolist() == [2, 3, 1]
    # Only what follows 2 is uncertain: one of three times 1, two of three times 3.
    expected = -(1 * math.log(1 / 3) + 2 * math.log(2 / 3)) / 6
    assert bigrams.entropy == pytest.approx(expected)
    assert bigrams.most_frequent.tolist() == [True, False, True, True]


def test_skipped_tokens_are_no_first_of_a_pair() -> None:
    bigrams = Bigrams.of_corpus(corpus([0, 5, 6], [0, 6, 5], skip_first=1))
    assert bigrams.first.tolist() == [5, 6]
    assert bigrams.second.tolist() == [6, 5]
    with pytest.raises(UserError):
        Bigrams.of_corpus(corpus([0, 5], [0, 6], skip_first=1))


def test_shuffling_keeps_both_tokens_counts_and_breaks_their_tie() -> None:
    rng = np.random.default_rng(0)
    a = rng.integers(0, 20, 4000)
    real = Bigrams.of_pairs(a, (a + 1) % 20)
    shuffled = real.shuffled(rng)
    assert shuffled.first.tolist() == real.first.tolist()
    assert shuffled.first_counts.tolist() == real.first_counts.tolist()
    assert shuffled.unigram()[1].tolist() == real.unigram()[1].tolist()
    assert real.entropy == pytest.approx(0, abs=1e-9)
    # 20 tokens, about equally often behind each.
    assert shuffled.entropy == pytest.approx(math.log(20), abs=0.1)


def test_a_perfect_a_wrong_and_a_uniform_prediction() -> None:
    bigrams = Bigrams.of_corpus(corpus([1, 2, 1, 2, 3], [2, 3, 3]))
    n_vocabulary = 4
    counted = torch.full((3, n_vocabulary), -math.inf)
    for row, b, share in [(0, 2, 1.0), (1, 1, 1 / 3), (1, 3, 2 / 3), (2, 3, 1.0)]:
        counted[row, b] = math.log(share)
    for n_rows in (1, 2, 3):
        found = predict(lambda rows: counted[torch.from_numpy(rows)], [bigrams], n_rows)
        perfect = score(bigrams, found.top, found.log_probabilities[0])
        assert perfect.agreement == 1
        # One bigram, 2 → 1, is not the most frequent one behind 2.
        assert perfect.accuracy == pytest.approx(5 / 6)
        assert perfect.kl == pytest.approx(0, abs=1e-6)
        assert perfect.log_probability == pytest.approx(-bigrams.entropy)
    uniform = predict(lambda rows: torch.zeros(len(rows), n_vocabulary), [bigrams], 2)
    scored = score(bigrams, uniform.top, uniform.log_probabilities[0])
    assert scored.log_probability == pytest.approx(-math.log(4))
    assert scored.kl == pytest.approx(math.log(4) - bigrams.entropy)
    wrong = score(bigrams, np.array([1, 1, 1]), np.full(4, -1.0))
    assert wrong.agreement == 0
    assert wrong.accuracy == pytest.approx(1 / 6)


def test_of_tokens_that_follow_equally_often_each_agrees() -> None:
    bigrams = Bigrams.of_pairs(np.array([7, 7, 7, 7]), np.array([1, 2, 1, 2]))
    for top in (1, 2):
        assert score(bigrams, np.array([top]), np.zeros(2)).agreement == 1
    assert score(bigrams, np.array([3]), np.zeros(2)).agreement == 0


def test_counts_predict_as_well_as_they_can() -> None:
    real = Bigrams.of_corpus(corpus([1, 2, 1, 2, 3], [2, 3, 3]))
    targets = [real, *(real.shuffled(np.random.default_rng(seed)) for seed in range(5))]
    unigram, bigram = count_scores(targets)
    assert (unigram.name, bigram.name) == (UNIGRAM, BIGRAM)
    # 3 follows most often, three times of six: behind 2 and 3 it is right, behind 1 it is not.
    assert unigram.score.agreement == pytest.approx(4 / 6)
    shares = np.array([1, 2, 3]) / 6
    assert unigram.score.log_probability == pytest.approx(float(shares @ np.log(shares)))
    # Shuffling leaves how often each token follows as it was.
    assert unigram.shuffled.log_probability == pytest.approx(unigram.score.log_probability)
    assert bigram.score.agreement == 1
    assert bigram.score.kl == pytest.approx(0, abs=1e-12)
    # A pair that never occurred has no probability.
    assert bigram.shuffled.log_probability is None
