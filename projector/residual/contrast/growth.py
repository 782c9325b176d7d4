"""Why variance grows over a block: the parts of the stream, of the update, and of both.

With the variance over samples summed over the H features, Var(x) = tr Cov(x, x), and a block that
adds u to x, Var(x + u) = Var(x) + Var(u) + 2 Cov(x, u), where Cov(x, u) = tr Cov(x, u). The first
two terms can't be negative. The third shows whether the update has the directions of the stream: it
is 0 on average for an update in random directions, regardless of its size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from torch import Tensor

from projector.errors import UserError
from projector.residual.contrast.records import ROUNDING

__all__ = ["CLOSES_TO", "Growth", "average_growth", "measure_growth"]

# How near to 1 the shares must sum.
CLOSES_TO = 1e-6
# What a split leaves over, of Var(update): more than half precision rounds off is not rounding.
_MOST_LEFT_OVER = 1e-2
# How many standard deviations hold 95 % of a normal distribution.
_BAND = 1.959964
_NO_GROWTH = "variance does not grow in this step"
_SPLIT = (
    "attention_variance",
    "mlp_variance",
    "covariance_pre_attention",
    "covariance_pre_mlp",
    "covariance_attention_mlp",
    "rest",
)


@dataclass(frozen=True)
class Growth:
    """The variance over n samples before and after one step, and its parts.

    All but the first five and the correlations are shares of Var(post), and covariances are counted
    twice, as in the identity. A figure that is undefined is None, with a reason in ``reasons``.

    Attributes:
        n: samples.
        variance_pre: mean over features of the unbiased variance over samples, before the step.
        variance_post: the same after it.
        gain_covariance: 2 Cov(pre, update), mean over features, so that it sums over steps like
            variance: Var at the end = Var at the start + Σ Var(update) + Σ 2 Cov(pre, update).
        ratio: Var(post) / Var(pre).
        pre: Var(pre); with ``update`` and ``covariance`` it sums to 1.
        update: Var(post − pre).
        covariance: 2 Cov(pre, update).
        covariance_rotated: 95 % of random rotations of the update give a ``covariance`` between
            minus this and this. Over rotations R, tr(C R) has mean 0 and variance ‖C‖²_F / H, C the
            H × H cross-covariance; it is nearly normal (Meckes 2008, "Linear functions on the
            classical matrix groups").
        correlation: Cov(pre, update) / √(Var(pre) Var(update)), from −1 to 1, which doesn't depend
            on the size of the update.
        correlation_rotated: the same band for ``correlation``.
        attention_variance: variance of attention's update alone.
        mlp_variance: variance of the MLP's update alone.
        covariance_pre_attention: 2 Cov(pre, attention's update).
        covariance_pre_mlp: 2 Cov(pre, the MLP's update).
        covariance_attention_mlp: 2 Cov(attention's update, the MLP's update).
        rest: 1 minus ``pre`` and these five, which is rounding error.
        covariance_of_growth: 2 Cov(pre, update) / (Var(post) − Var(pre)), if variance grows; it
            isn't bounded, because a small growth may be the difference of large terms.
        reasons: figure → reason why it is None.
    """

    n: int
    variance_pre: float | None
    variance_post: float | None
    gain_covariance: float | None = None
    ratio: float | None = None
    pre: float | None = None
    update: float | None = None
    covariance: float | None = None
    covariance_rotated: float | None = None
    correlation: float | None = None
    correlation_rotated: float | None = None
    attention_variance: float | None = None
    mlp_variance: float | None = None
    covariance_pre_attention: float | None = None
    covariance_pre_mlp: float | None = None
    covariance_attention_mlp: float | None = None
    rest: float | None = None
    covariance_of_growth: float | None = None
    reasons: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Convert to JSON values."""
        return asdict(self)


def measure_growth(
    pre: Tensor, attention: Tensor | None, mlp: Tensor | None, post: Tensor
) -> Growth:
    """Split the variance after a step into its parts, for one set of samples.

    The update is post − pre. It is split if ``attention`` and ``mlp`` sum to it, or if one of them
    is the whole update. All sums are float64.

    Args:
        pre: (n, H), the stream before the step.
        attention: (n, H), attention's addition, biases included; None if unknown.
        mlp: (n, H), the same for the MLP.
        post: (n, H), the stream after the step.

    Raises:
        UserError: if a number isn't finite, or the identity doesn't hold to 1e-6.
    """
    n = len(pre)
    if n < 2:
        return _without(n, None, None, "a variance needs two samples or more")
    before, after = pre.double(), post.double()
    x, y = _centred(before), _centred(after)
    u = _centred(after - before)
    var_x, var_y, var_u = _sum(x, x), _sum(y, y), _sum(u, u)
    if not all(math.isfinite(each) for each in (var_x, var_y, var_u)):
        raise UserError("the variance of the stream is not finite: the model gives NaN or infinity")
    per_feature = x.shape[1] * (n - 1)
    sizes = (var_x / per_feature, var_y / per_feature)
    if var_y <= ROUNDING * float(after.square().sum()):
        return _without(n, *sizes, "all samples have the same vector after this step")
    cross = _sum(x, u)
    shares = {"pre": var_x / var_y, "update": var_u / var_y, "covariance": 2 * cross / var_y}
    _check_sum(shares)
    found = {**shares, "gain_covariance": 2 * cross / per_feature}
    reasons: dict[str, str] = {}
    # ‖Xᵀ U‖²_F, from the n × n products where these are fewer.
    rotated = _BAND * math.sqrt(_square_of_product(x, u) / x.shape[1])
    found["covariance_rotated"] = 2 * rotated / var_y
    if var_x <= ROUNDING * float(before.square().sum()):
        same = "all samples have the same vector before this step"
        reasons |= dict.fromkeys(("ratio", "correlation", "correlation_rotated"), same)
    else:
        found["ratio"] = var_y / var_x
        if var_u > 0:
            size = math.sqrt(var_x) * math.sqrt(var_u)
            found |= {"correlation": cross / size, "correlation_rotated": rotated / size}
        else:
            none = "the update is the same for all samples"
            reasons |= dict.fromkeys(("correlation", "correlation_rotated"), none)
    if var_y > var_x:
        found["covariance_of_growth"] = 2 * cross / (var_y - var_x)
    else:
        reasons["covariance_of_growth"] = _NO_GROWTH
    split = _split(x, u, attention, mlp, var_y)
    if isinstance(split, str):
        reasons |= dict.fromkeys(_SPLIT, split)
    else:
        found |= split
        found["rest"] = 1 - found["pre"] - sum(split.values())
        absent = "this step has only {}"
        given = "attention" if mlp is None else "the MLP"
        reasons |= {name: absent.format(given) for name in _SPLIT if name not in found}
    return Growth(n, *sizes, **found, reasons=reasons)


def average_growth(each: Sequence[Growth]) -> Growth:
    """Average every figure over several sets; None, with the reason, if a set lacks it.

    Shares still sum to 1. ``n`` is the number of samples of all sets, and ``covariance_of_growth``
    is computed from their total growth.
    """
    reasons: dict[str, str] = {}
    for one in reversed(each):
        reasons |= one.reasons
    means: dict[str, float | None] = {}
    for name in (f.name for f in fields(Growth) if f.name not in ("n", "reasons")):
        values = [getattr(one, name) for one in each]
        given = [value for value in values if value is not None]
        means[name] = sum(given) / len(given) if given and len(given) == len(values) else None
    # A ratio of sums: the mean of ratios would be that of the set that hardly grows.
    pre, post, gain = (means[x] for x in ("variance_pre", "variance_post", "gain_covariance"))
    if pre is not None and post is not None and gain is not None:
        grows = post > pre
        means["covariance_of_growth"] = gain / (post - pre) if grows else None
        reasons.pop("covariance_of_growth", None)
        if not grows:
            reasons["covariance_of_growth"] = _NO_GROWTH
    return Growth(sum(one.n for one in each), **means, reasons=reasons)


def _without(n: int, pre: float | None, post: float | None, reason: str) -> Growth:
    names = [f.name for f in fields(Growth) if f.default is None]
    if pre is None:
        names += ["variance_pre", "variance_post"]
    return Growth(n, pre, post, reasons=dict.fromkeys(names, reason))


def _centred(x: Tensor) -> Tensor:
    return x - x.mean(dim=0)


def _sum(a: Tensor, b: Tensor) -> float:
    return float((a * b).sum())


def _square_of_product(a: Tensor, b: Tensor) -> float:
    """‖aᵀ b‖²_F of (n, H) each."""
    if a.shape[0] <= a.shape[1]:
        return float(((a @ a.T) * (b @ b.T)).sum())
    return float((a.T @ b).square().sum())


def _check_sum(shares: Mapping[str, float]) -> None:
    off = abs(math.fsum(shares.values()) - 1)
    size = max(1.0, *(abs(share) for share in shares.values()))
    if not off <= CLOSES_TO * size:
        raise UserError(
            "the variance after a step isn't the sum of its parts: their shares differ from 1 by "
            f"{off:.1e}; rounding explains at most {CLOSES_TO:.0e}"
        )


def _split(
    x: Tensor, u: Tensor, attention: Tensor | None, mlp: Tensor | None, var_y: float
) -> dict[str, float] | str:
    """The shares of what attention and the MLP add; or why they can't be given."""
    if attention is None and mlp is None:
        return "the updates of attention and the MLP can't be separated"
    a = None if attention is None else _centred(attention.double())
    m = None if mlp is None else _centred(mlp.double())
    left = u
    for each in (a, m):
        left = left if each is None else left - each
    if _sum(left, left) > max(_MOST_LEFT_OVER * _sum(u, u), ROUNDING * var_y):
        return "the updates of attention and the MLP don't sum to the stream's change in this step"
    found = {}
    if a is not None:
        found["attention_variance"] = _sum(a, a) / var_y
        found["covariance_pre_attention"] = 2 * _sum(x, a) / var_y
    if m is not None:
        found["mlp_variance"] = _sum(m, m) / var_y
        found["covariance_pre_mlp"] = 2 * _sum(x, m) / var_y
    if a is not None and m is not None:
        found["covariance_attention_mlp"] = 2 * _sum(a, m) / var_y
    return found
