"""Places of the stream, and what is measured of two sets at one of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

__all__ = ["ROUNDING", "STREAMS", "Interval", "OutlierToken", "Point", "PointMeasures", "Updates"]

STREAMS = ("resid_pre", "resid_mid", "resid_post")
# Of a sum of squares: what float32 leaves of differences that are none.
ROUNDING = 1e-12


@dataclass(frozen=True, order=True)
class Point:
    """A place of the stream.

    Attributes:
        layer: from 0.
        stream: ``resid_pre``, ``resid_mid`` or ``resid_post``.
    """

    layer: int
    stream: str

    @property
    def is_embedding(self) -> bool:
        """Whether no block has written yet."""
        return not self.layer and self.stream == "resid_pre"


Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class Updates:
    """What attention and the MLP of one block add, biases included.

    Attributes:
        attention: (n_positive, H) and (n_negative, H) float32; None where it is not known.
        mlp: likewise.
        reason: why one of them is None.
    """

    attention: Pair | None
    mlp: Pair | None
    reason: str | None = None


@dataclass(frozen=True)
class OutlierToken:
    """A token whose norm is many times the median of its prompt.

    Attributes:
        token: its id.
        text: its text.
        is_first: whether it is its prompt's first token.
        layer: where it is furthest out.
        stream: likewise.
        times_usual: its norm there over the median; None where it is not finite.
        n: how many such tokens there are, in both sets.
    """

    token: int
    text: str
    is_first: bool
    layer: int
    stream: str
    times_usual: float | None
    n: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Interval:
    """A figure with its spread; or a null's median with its 5th and 95th percentile.

    The spread is as wide as what holds 95 % of bootstrap draws of the prompts, about the figure:
    how far the figure varies at this number of prompts. A biased figure, such as the largest of
    many variances, may have a true value outside of it.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class PointMeasures:
    """Means and variances of two sets at one place. What can't be given is None, with a reason.

    Attributes:
        cosine: of the two sets' means, and its bootstrap spread over prompts.
        split_half: the same of random halves of one set, of whole groups, both sets pooled. With
            half the prompts it holds more noise than ``cosine``.
        across_halves: the same of a half of one set and a half of the other that share no group:
            as noisy as ``split_half``, and so what compares with it.
        permuted: the same of two groups with permuted labels.
        mean_norm_positive: ‖mean of the first set‖.
        mean_norm_negative: likewise of the second set.
        difference_norm: ‖difference of the means‖.
        difference_permuted: the same with permuted labels.
        variance_mean_positive: mean over features of the unbiased variance over the first set's
            prompts, with its spread.
        variance_mean_negative: likewise of the second set.
        variance_max_positive: the largest feature's variance in these prompts, which is as a rule
            above the largest true one.
        variance_max_negative: likewise of the second set.
        reasons: why a figure is None, by its name; there is one for each.
    """

    cosine: Interval | None = None
    split_half: Interval | None = None
    across_halves: Interval | None = None
    permuted: Interval | None = None
    mean_norm_positive: float | None = None
    mean_norm_negative: float | None = None
    difference_norm: float | None = None
    difference_permuted: Interval | None = None
    variance_mean_positive: Interval | None = None
    variance_mean_negative: Interval | None = None
    variance_max_positive: Interval | None = None
    variance_max_negative: Interval | None = None
    reasons: Mapping[str, str] = field(default_factory=dict)
