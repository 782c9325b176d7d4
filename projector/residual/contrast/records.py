"""Points of the stream, and the measures of two sets at a point."""

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
    """A point of the stream.

    Attributes:
        layer: index of the layer, from 0.
        stream: ``resid_pre``, ``resid_mid`` or ``resid_post``.
    """

    layer: int
    stream: str

    @property
    def is_embedding(self) -> bool:
        """Whether no block has written to the stream yet."""
        return not self.layer and self.stream == "resid_pre"


Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class Updates:
    """The updates of attention and the MLP of one block, biases included.

    Attributes:
        attention: (n_positive, H) and (n_negative, H) float32; None if unknown.
        mlp: the same for the MLP.
        reason: why one of them is None.
    """

    attention: Pair | None
    mlp: Pair | None
    reason: str | None = None


@dataclass(frozen=True)
class OutlierToken:
    """A token with a norm many times the median of its prompt.

    Attributes:
        token: the token's id.
        text: the token's text.
        is_first: whether it is its prompt's first token.
        layer: the layer where it is most extreme.
        stream: the stream where it is most extreme.
        times_usual: its norm there divided by the median; None if it isn't finite.
        n: number of such tokens in both sets.
    """

    token: int
    text: str
    is_first: bool
    layer: int
    stream: str
    times_usual: float | None
    n: int

    def as_dict(self) -> dict[str, Any]:
        """Convert to JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Interval:
    """A figure with its spread; or a null's median with its 5th and 95th percentiles.

    The spread has the width of the interval with 95 % of bootstrap draws of the prompts, and is
    centred on the figure. It shows how far the figure varies at this number of prompts. A biased
    figure, such as the largest of many variances, may have a true value outside of it.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class PointMeasures:
    """Means and variances of two sets at one point. Undefined figures are None, with a reason.

    Attributes:
        cosine: cosine of the two sets' means, with its bootstrap spread over prompts.
        split_half: the same for random halves of one set, split by whole groups, pooled over both
            sets. With half the prompts, it is noisier than ``cosine``.
        across_halves: the same for a half of one set and a half of the other that share no group.
            It is as noisy as ``split_half``, and so comparable with it.
        permuted: the same for two sets with permuted labels.
        mean_norm_positive: ‖mean of the first set‖.
        mean_norm_negative: the same for the second set.
        difference_norm: ‖difference of the means‖.
        difference_permuted: the same with permuted labels.
        variance_mean_positive: mean over features of the unbiased variance over the first set's
            prompts, with its spread.
        variance_mean_negative: the same for the second set.
        variance_max_positive: the largest variance of a feature in these prompts, which usually
            exceeds the largest true variance.
        variance_max_negative: the same for the second set.
        reasons: figure → reason why it is None.
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
