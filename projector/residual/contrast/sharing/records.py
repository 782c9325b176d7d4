"""How far successive layers share directions: figures beside what random rotations give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from torch import Tensor

__all__ = ["Measured", "Sharing", "SharingRow", "Verdict"]

Verdict = Literal["shared", "in part", "not shared"]


@dataclass(frozen=True)
class Measured:
    """A figure, and the same one with one side turned at random.

    Attributes:
        value: the model's own.
        random_median: of the random rotations.
        random_low: 5 % of them give less.
        random_high: 5 % of them give more.
    """

    value: float
    random_median: float
    random_low: float
    random_high: float

    @classmethod
    def of(cls, value: float, drawn: Tensor) -> Measured:
        """From a value and (n_draws,) random ones."""
        low, median, high = np.quantile(drawn.double().numpy(), [0.05, 0.5, 0.95])
        return cls(value, float(median), float(low), float(high))

    @property
    def is_random(self) -> bool:
        """Whether 90 % of random rotations would hold it."""
        return self.random_low <= self.value <= self.random_high

    @property
    def beyond_random(self) -> float:
        """On the scale on which random rotations give 0 and identical directions 1."""
        left = 1 - self.random_median
        return (self.value - self.random_median) / left if left > 0 else 0.0


@dataclass(frozen=True)
class SharingRow:
    """Two layers that follow each other. What can't be given is None, and ``reasons`` says why.

    Attributes:
        layer: the first of them.
        following: the second.
        cosine: between a sample's two updates, each without its mean over the set; the mean over
            samples.
        captured: how much variance of the following update lies in the k top directions of this
            one's, as a share of what its own k top directions hold.
        overlap: mean squared cosine of the principal angles between these two spans; 1 where they
            are the same span, k / H on average for random ones.
        angles: the k principal angles, in degrees, smallest first (Björck and Golub 1973).
        angles_random: the median of each for random spans.
        n_directions: k, of the updates.
        attention_weights: ``overlap`` of the top left singular directions of attention's output
            weights, as they reach the stream.
        mlp_weights: likewise of the MLPs'.
        n_weight_directions: how many directions of the weights.
        reasons: why a figure is None, by its name.
    """

    layer: int
    following: int
    cosine: Measured | None = None
    captured: Measured | None = None
    overlap: Measured | None = None
    angles: tuple[float, ...] | None = None
    angles_random: tuple[float, ...] | None = None
    n_directions: int | None = None
    attention_weights: Measured | None = None
    mlp_weights: Measured | None = None
    n_weight_directions: int | None = None
    reasons: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Sharing:
    """Whether successive layers write in the same directions.

    Attributes:
        rows: one for each two layers that follow each other.
        cosine: mean over rows, beside the same mean of random rotations; so are the four below.
        captured: see :class:`SharingRow`.
        overlap: see :class:`SharingRow`.
        attention_weights: see :class:`SharingRow`.
        mlp_weights: see :class:`SharingRow`.
        overlap_apart: mean ``overlap`` of layers at least half the depth apart: what all layers of
            this model have in common, whether or not they follow each other. None for a model of
            fewer than four layers.
        verdict: by :func:`~projector.residual.contrast.sharing.verdict.judge`; None where nothing
            could be measured.
        sentence: what was found, in words.
        notes: what to know about how directions were read in this model.
        n_draws: random rotations for each row.
    """

    rows: tuple[SharingRow, ...]
    cosine: Measured | None
    captured: Measured | None
    overlap: Measured | None
    attention_weights: Measured | None
    mlp_weights: Measured | None
    overlap_apart: float | None
    verdict: Verdict | None
    sentence: str
    notes: tuple[str, ...]
    n_draws: int

    def as_dict(self) -> dict[str, Any]:
        """What JSON holds of it."""
        return asdict(self)
