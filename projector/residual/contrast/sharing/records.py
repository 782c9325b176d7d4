"""How far successive layers share directions, compared with random rotations."""

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
    """A figure, and its values after random rotations of one side.

    Attributes:
        value: the model's own value.
        random_median: median over the random rotations.
        random_low: 5th percentile over them.
        random_high: 95th percentile over them.
    """

    value: float
    random_median: float
    random_low: float
    random_high: float

    @classmethod
    def of(cls, value: float, drawn: Tensor) -> Measured:
        """Create from a value and (n_draws,) random values."""
        low, median, high = np.quantile(drawn.double().numpy(), [0.05, 0.5, 0.95])
        return cls(value, float(median), float(low), float(high))

    @property
    def is_random(self) -> bool:
        """Whether it is within the central 90 % of random rotations."""
        return self.random_low <= self.value <= self.random_high

    @property
    def beyond_random(self) -> float:
        """The value on a scale where random rotations are 0 and identical directions are 1."""
        left = 1 - self.random_median
        return (self.value - self.random_median) / left if left > 0 else 0.0


@dataclass(frozen=True)
class SharingRow:
    """Two successive layers. Undefined figures are None, with a reason in ``reasons``.

    Attributes:
        layer: the first layer. following: the second layer.
        cosine: mean over samples of the cosine between a sample's two centred updates.
        captured: variance of the following update in the top k directions of this one, as a share
            of its variance in its own top k directions.
        overlap: mean squared cosine of the principal angles between these two subspaces; 1 if they
            are the same, k / H on average for random ones.
        angles: the k principal angles, in degrees, smallest first (Björck and Golub 1973).
        angles_random: the median of each for random subspaces.
        n_directions: k, the number of directions of updates.
        attention_weights: ``overlap`` of the top left singular directions of attention's output
            weights, in the stream.
        mlp_weights: the same for the MLPs' output weights.
        n_weight_directions: number of directions of the weights.
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
        rows: one for each pair of successive layers.
        cosine: mean over rows, with the same mean for random rotations; so are the next four.
        captured: see :class:`SharingRow`.
        overlap: see :class:`SharingRow`.
        attention_weights: see :class:`SharingRow`.
        mlp_weights: see :class:`SharingRow`.
        overlap_apart: mean ``overlap`` of layers at least half the depth apart, which shows what
            all layers of this model have in common. None for a model with fewer than four layers.
        verdict: from :func:`~projector.residual.contrast.sharing.verdict.judge`; None if nothing
            could be measured.
        sentence: the result in words.
        notes: remarks about how directions were computed for this model.
        n_draws: number of random rotations for each row.
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
        """Convert to JSON values."""
        return asdict(self)
