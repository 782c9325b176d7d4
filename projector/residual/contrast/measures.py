"""Means and variances of two sets of vectors, each with its chance level.

All draws of one kind are weights over prompts, (D, n), so a single matrix product gives the means
of all draws. Sums are float64.

A mean over few prompts is noisy, which lowers every cosine, including that of a null; a bootstrap
sample has this noise twice. An interval therefore has the width of the bootstrap and is centred on
the figure itself. It shows how far the figure would vary between samples with this number of
prompts. It doesn't correct a bias: noise lowers the cosine of the true means, and the largest of
many sample variances exceeds the largest true variance.

Random halves have half the prompts, and so more noise than the sets. Two halves of one set are
therefore compared with a half of one set against a half of the other, from the same split. No group
of prompts is on both sides of either comparison.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from projector.residual.contrast.records import ROUNDING, Interval, PointMeasures
from projector.residual.sampling.bootstrap import resample_groups
from projector.residual.sampling.labels import halve_groups, permute_labels

__all__ = [
    "Draws",
    "cosine_of_means",
    "measure_means",
]

# Fewer have no 2.5th percentile worth the name.
_LEAST_RESAMPLED = 1000
_NO_LENGTH = "a set's mean is zero here"
_NO_HALVES = "all prompts of a set belong together, so it can't be halved"
_NO_HALF_LENGTH = "the mean of each half is zero here"
_NO_PERMUTED = "the mean of each permuted set is zero here"
_NOT_FINITE = "the stream has numbers that are not finite"
_SIDES = ("positive", "negative")
Weights = NDArray[np.float64]


def cosine_of_means(a: Tensor, b: Tensor) -> float | None:
    """The cosine of the means of (n, H) and (m, H); None if a mean is zero."""
    first, second = a.double().mean(dim=0), b.double().mean(dim=0)
    found = float(_cosines(first[None], second[None])[0])
    return found if found == found else None


class Draws:
    """All random draws of prompts for controls, the same at each point of the stream.

    Attributes:
        resampled: (B, n) and (B, m) weights of bootstrap samples, of whole groups.
        halves: (D, n) and (D, m), whether a prompt is in the first half. Both sets use the same
            split of whole groups, so the first half of one shares no group with the second half of
            the other.
        has_halves: whether both sets can be halved, with more than one group each.
        permuted: (D, n + m) labels.

    Args:
        positive_groups: a group number for each prompt of the first set; prompts of a group are
            drawn together.
        negative_groups: the same for the second set.
    """

    def __init__(
        self,
        positive_groups: Sequence[int],
        negative_groups: Sequence[int],
        *,
        n_draws: int = 100,
        seed: int = 0,
    ) -> None:
        random = np.random.default_rng(seed)
        n = len(positive_groups)
        groups = np.asarray([*positive_groups, *negative_groups], dtype=np.int64)
        labels = np.arange(len(groups)) < n
        weights = resample_groups(labels, groups, max(_LEAST_RESAMPLED, n_draws), random)
        self.resampled = tuple(_scaled(w) for w in (weights[:, :n], weights[:, n:]))
        halves = halve_groups(labels, groups, n_draws, random)
        self.halves = halves[:, :n], halves[:, n:]
        self.has_halves = all(bool(each.any()) for each in self.halves)
        self.permuted = permute_labels(labels, groups, n_draws, random).T


def measure_means(positive: Tensor, negative: Tensor, draws: Draws) -> PointMeasures:
    """Measure the cosine, norms and variances of two sets at one point, with intervals and nulls.

    Args:
        positive: (n, H), the first set's vectors.
        negative: (m, H), the second set's.
        draws: draws for n and m prompts.
    """
    sides = positive.double(), negative.double()
    if not all(bool(torch.isfinite(each).all()) for each in sides):
        names = (each.name for each in fields(PointMeasures) if each.name != "reasons")
        return PointMeasures(reasons=dict.fromkeys(names, _NOT_FINITE))
    reasons: dict[str, str] = {}
    means = [each.mean(dim=0) for each in sides]
    cosine = split_half = across = permuted = None
    value = float(_cosines(means[0][None], means[1][None])[0])
    resampled = [torch.from_numpy(w) @ each for w, each in zip(draws.resampled, sides, strict=True)]
    if value == value:
        cosine = _centred(value, _cosines(resampled[0], resampled[1]))
        halves = [_half_means(x, h) for x, h in zip(sides, draws.halves, strict=True)]
        (a, b), (c, d) = halves
        split_half = _null(torch.cat([_cosines(a, b), _cosines(c, d)]))
        across = _null(torch.cat([_cosines(a, d), _cosines(b, c)]))
        why = _NO_HALF_LENGTH if draws.has_halves else _NO_HALVES
        missing = {"split_half": split_half, "across_halves": across}
        reasons |= {name: why for name, null in missing.items() if null is None}
    else:
        reasons |= dict.fromkeys(("cosine", "split_half", "across_halves", "permuted"), _NO_LENGTH)
    labels = torch.from_numpy(draws.permuted).double()
    both = torch.cat(sides)
    first, second = (w @ both / w.sum(dim=1, keepdim=True) for w in (labels, 1 - labels))
    if value == value:
        permuted = _null(_cosines(first, second))
        if permuted is None:
            reasons["permuted"] = _NO_PERMUTED
    figures: dict[str, Interval] = {}
    for name, x, mean, weights, drawn in zip(
        _SIDES, sides, means, draws.resampled, resampled, strict=True
    ):
        variances = _variances(x, mean, torch.from_numpy(weights), drawn)
        if variances is None:
            zero = Interval(0.0, 0.0, 0.0)
            variances = zero, zero
        figures[f"variance_mean_{name}"], figures[f"variance_max_{name}"] = variances
    return PointMeasures(
        cosine=cosine,
        split_half=split_half,
        across_halves=across,
        permuted=permuted,
        mean_norm_positive=float(means[0].norm()),
        mean_norm_negative=float(means[1].norm()),
        difference_norm=float((means[0] - means[1]).norm()),
        difference_permuted=_null((first - second).norm(dim=1)),
        reasons=reasons,
        **figures,
    )


def _cosines(a: Tensor, b: Tensor) -> Tensor:
    """(D,) cosines of rows; NaN if one has no length."""
    sizes = a.norm(dim=1) * b.norm(dim=1)
    return ((a * b).sum(dim=1) / sizes.where(sizes > 0, torch.nan)).clamp(-1, 1)


def _half_means(x: Tensor, halves: NDArray[np.bool_]) -> tuple[Tensor, Tensor]:
    """(D, H) means of both halves; NaN for both where the first is empty."""
    weights = torch.from_numpy(halves).double()
    weights = weights.where(weights.any(dim=1, keepdim=True), torch.nan)
    first, second = (w @ x / w.sum(dim=1, keepdim=True) for w in (weights, 1 - weights))
    return first, second


def _variances(
    x: Tensor, mean: Tensor, weights: Tensor, drawn: Tensor
) -> tuple[Interval, Interval] | None:
    """Mean and largest variance over features, with intervals; None if there is none."""
    n = len(x)
    centred = x - mean
    variance = centred.square().sum(dim=0) / max(1, n - 1)
    if float(variance.sum()) <= ROUNDING * float(x.square().sum()) / n:
        return None
    # Var over a bootstrap sample, of the centred vectors, so that nothing large cancels out.
    resampled = weights @ centred.square() - (drawn - mean).square()
    resampled = resampled.clamp_min(0) * n / max(1, n - 1)
    return (
        _scaled_interval(float(variance.mean()), resampled.mean(dim=1)),
        _scaled_interval(float(variance.max()), resampled.amax(dim=1)),
    )


def _centred(value: float, drawn: Tensor) -> Interval:
    """A cosine with the spread of its draws about itself; within −1 and 1."""
    known = drawn[~drawn.isnan()].numpy()
    if not len(known):
        return Interval(value, value, value)
    low, middle, high = (float(each) for each in np.quantile(known, [0.025, 0.5, 0.975]))
    return Interval(value, max(-1.0, value + low - middle), min(1.0, value + high - middle))


def _scaled_interval(value: float, drawn: Tensor) -> Interval:
    """A variance with the spread of its draws about itself, as a factor: it stays above 0."""
    low, middle, high = np.quantile(drawn.numpy(), [0.025, 0.5, 0.975])
    if not middle > 0:
        return Interval(value, min(value, float(low)), max(value, float(high)))
    return Interval(value, float(value * low / middle), float(value * high / middle))


def _null(drawn: Tensor) -> Interval | None:
    known = drawn[~drawn.isnan()].numpy()
    if not len(known):
        return None
    low, middle, high = np.quantile(known, [0.05, 0.5, 0.95])
    return Interval(float(middle), float(low), float(high))


def _scaled(weights: Weights) -> Weights:
    return np.ascontiguousarray(weights / weights.sum(axis=1, keepdims=True))
