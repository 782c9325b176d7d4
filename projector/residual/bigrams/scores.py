"""Scores of predictions of token b from the previous token a alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from projector.residual.bigrams.counts import Bigrams
from projector.residual.logits.highest import find_highest

UNIGRAM, BIGRAM = "unigram", "bigram"


@dataclass(frozen=True)
class Score:
    """How well b is predicted from a alone.

    Attributes:
        agreement: share of bigrams for which the top prediction after a is a token that follows a
            most often in the corpus; for ties, any of them.
        accuracy: share of bigrams for which b is the top prediction.
        log_probability: mean log p(b | a) in nats; None for −∞.
        kl: mean over a of KL(corpus ‖ prediction) in nats: −log_probability minus the corpus's own
            conditional entropy; None if infinite.
    """

    agreement: float
    accuracy: float
    log_probability: float | None
    kl: float | None


@dataclass(frozen=True)
class PathScore:
    """A prediction's score, and its score on bigrams with shuffled second tokens.

    Attributes:
        name: name of a path, :data:`UNIGRAM` (the frequency of b, for any a), or :data:`BIGRAM`
            (the counts themselves, the best possible prediction from a alone).
        shuffled: means over the shuffles.
        shuffled_agreement_most: the largest agreement of any shuffle.
    """

    name: str
    score: Score
    shuffled: Score
    shuffled_agreement_most: float


@dataclass(frozen=True, eq=False)
class Prediction:
    """A prediction for each a, without its logits.

    Attributes:
        top: (F,), the most probable b.
        top_log_probability: (F,), its log-probability.
        log_probabilities: for each target, (P,) log p(b | a).
    """

    top: np.ndarray
    top_log_probability: np.ndarray
    log_probabilities: tuple[np.ndarray, ...]


def predict(
    logits: Callable[[np.ndarray], Tensor],
    targets: Sequence[Bigrams],
    n_rows: int,
    advance: Callable[[int], None] = lambda n: None,
) -> Prediction:
    """Compute predictions from logits, for a few tokens at a time.

    Args:
        logits: indices in ``first`` → (n, V) float32.
        targets: the bigrams to score; all have the same ``first``.
        n_rows: number of tokens with logits in memory at once.
        advance: called with the number of tokens done since the last call.
    """
    n = len(targets[0].first)
    top, top_log = np.zeros(n, np.int64), np.zeros(n)
    found = [np.zeros(len(each.second)) for each in targets]
    for start in range(0, n, n_rows):
        rows = np.arange(start, min(start + n_rows, n))
        given = logits(rows)
        best, log_p = find_highest(given, 1)[1], given.log_softmax(dim=-1)
        top[rows] = best[:, 0].cpu().numpy()
        top_log[rows] = log_p.gather(1, best)[:, 0].cpu().numpy()
        for each, into in zip(targets, found, strict=True):
            pairs = slice(each.starts[rows[0]], each.starts[rows[-1] + 1])
            row = torch.from_numpy(each.rows[pairs] - start).to(log_p.device)
            b = torch.from_numpy(each.second[pairs]).to(log_p.device)
            into[pairs] = log_p[row, b].double().cpu().numpy()
        advance(len(rows))
    return Prediction(top, top_log, tuple(found))


def score(bigrams: Bigrams, top: np.ndarray, log_probabilities: np.ndarray) -> Score:
    """Score a prediction.

    Args:
        top: (F,), the most probable b after each a.
        log_probabilities: (P,) log p(b | a) of each pair.
    """
    is_top = bigrams.second == top[bigrams.rows]
    right = is_top & bigrams.most_frequent
    agreement = bigrams.first_counts[bigrams.rows[right]].sum() / bigrams.n
    mean = float((bigrams.counts * log_probabilities).sum() / bigrams.n)
    known = math.isfinite(mean)
    return Score(
        float(agreement),
        float(bigrams.counts[is_top].sum() / bigrams.n),
        mean if known else None,
        -mean - bigrams.entropy if known else None,
    )


def _mean_score(scores: Sequence[Score]) -> Score:
    def mean(values: Sequence[float | None]) -> float | None:
        known = [v for v in values if v is not None]
        return sum(known) / len(known) if len(known) == len(values) else None

    return Score(
        sum(s.agreement for s in scores) / len(scores),
        sum(s.accuracy for s in scores) / len(scores),
        mean([s.log_probability for s in scores]),
        mean([s.kl for s in scores]),
    )


def path_score(
    name: str, targets: Sequence[Bigrams], top: np.ndarray, log_probabilities: Sequence[np.ndarray]
) -> PathScore:
    """A prediction's score on the first target, and on the shuffled targets after it."""
    first, *others = (score(t, top, p) for t, p in zip(targets, log_probabilities, strict=True))
    return PathScore(name, first, _mean_score(others), max(each.agreement for each in others))


def count_scores(targets: Sequence[Bigrams]) -> list[PathScore]:
    """Scores of the counts of the first target as predictions: unigrams and bigrams."""
    real = targets[0]
    tokens, counts = real.unigram()
    log_unigram = np.log(counts / real.n)
    most = np.full(len(real.first), tokens[counts.argmax()])
    of_unigram = [log_unigram[np.searchsorted(tokens, each.second)] for each in targets]
    share = np.log(real.counts / real.first_counts[real.rows])
    width = int(max(each.second.max() for each in targets)) + 1
    keys = real.rows * width + real.second
    of_bigram = []
    for each in targets:
        wanted = each.rows * width + each.second
        at = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
        of_bigram.append(np.where(keys[at] == wanted, share[at], -math.inf))
    return [
        path_score(UNIGRAM, targets, most, of_unigram),
        path_score(BIGRAM, targets, real.most_frequent_next, of_bigram),
    ]
