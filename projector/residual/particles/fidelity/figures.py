"""Measures of how faithful a picture of particles is, compared with random projections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from projector.layouts.costs import EXACT
from projector.residual.particles.near import as_points, squared_distances
from projector.residual.particles.reduction.reduction import Metric

# Fewer have no order to speak of.
_LEAST_RANKED = 3
# Of a squared distance, beside the mean of ‖x‖²: what is nearer than this is in the same place.
_TIE = 1e-10
_N_DRAWS = 20
# Particles whose neighbours are looked at, spread evenly, and among how many, drawn at random.
_MOST_ASKED, _MOST_AMONG = 512, 2_048
# A share of the others so large says little of who is near.
_MOST_SHARE = 5
_ROWS_AT_ONCE = 4_096


@dataclass(frozen=True)
class Figures:
    """The measures of one frame; None for undefined values.

    Attributes:
        variance: the share of variance explained.
        kept: the share of nearest neighbours kept; ``random`` is its mean for random projections.
        chance: the share kept by random positions.
        k: the number of nearest neighbours.
    """

    variance: float | None = None
    kept: float | None = None
    chance: float | None = None
    random: float | None = None
    k: int | None = None


def figures_of(
    x: Tensor, p: Tensor, *, metric: Metric, k: int, axes: Tensor | None, linear: bool
) -> tuple[Figures, str | None]:
    """Measure particles x (n, W) at positions p (n, 3), or give the reason why it isn't possible.

    Args:
        axes: (draws, W, dim), axes of random projections; None for no projections.
        linear: whether variance explained is defined.
    """
    if len(x) < _LEAST_RANKED:
        return Figures(), "fewer than three different particles count in this frame"
    whole, squares = _spread(x)
    if not whole > _TIE * squares:
        return Figures(), "all particles of this frame are in the same place"
    kept = neighbours_kept(x, p, metric=metric, k=k, axes=axes)
    variance = min(1.0, _spread(p)[0] / whole) if linear else None
    return Figures(variance, kept.kept, kept.chance, kept.random, kept.k), None


def _spread(rows: Tensor) -> tuple[float, float]:
    """The mean of ‖x − x̄‖², and that of ‖x‖², in float64."""
    middle = rows.mean(dim=0, dtype=torch.float64)
    apart = squares = 0.0
    for part in rows.split(_ROWS_AT_ONCE):
        whole = part.double()
        squares += float(whole.square().sum())
        apart += float((whole - middle).square().sum())
    return apart / len(rows), squares / len(rows)


def neighbours_kept(
    x: Tensor, p: Tensor, *, metric: Metric, k: int, axes: Tensor | None = None
) -> Figures:
    """The share of nearest neighbours on the map that are nearest in full space, and the chance
    level.

    For many particles, it is measured among 2,048 of them.

    Args:
        x: (n, W), at least three rows.
        p: (n, 3), their positions.
        metric: metric in full space.
        k: number of nearest neighbours; at most a fifth of the other particles.
        axes: (draws, W, dim), axes of random projections; None for no projections.
    """
    if len(x) > _MOST_AMONG:
        drawn = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
        among = drawn[:_MOST_AMONG].sort().values
        x, p = x[among], p[among]
    n = len(x)
    k = min(k, max(1, (n - 1) // _MOST_SHARE))
    asked = torch.linspace(0, n - 1, min(n, _MOST_ASKED)).round().long()
    points = as_points(x, metric)
    own = torch.arange(len(asked)), asked
    far = squared_distances(points[asked], points)
    far[own] = torch.inf
    limit = far.kthvalue(k, dim=1, keepdim=True).values
    is_near = far <= limit + _TIE * points.square().sum(dim=1).mean()

    def share(places: Tensor) -> float:
        shown = torch.cdist(places[asked], places, compute_mode=EXACT)
        shown[own] = torch.inf
        nearest = shown.topk(k, dim=1, largest=False).indices
        return float(is_near.gather(1, nearest).double().mean())

    chance = float(is_near.sum(dim=1).double().mean() / (n - 1))
    random = None if axes is None else mean_of([share(each) for each in points @ axes])
    return Figures(None, share(p.double()), chance, random, k)


def random_axes(width: int, dim: int, seed: int) -> Tensor:
    """Orthonormal axes of random projections, (20, width, dim) float64, with dim ≤ width."""
    generator = torch.Generator().manual_seed(seed)
    shape = width, min(dim, width)
    drawn = [
        torch.linalg.qr(torch.randn(*shape, generator=generator, dtype=torch.float64)).Q
        for _ in range(_N_DRAWS)
    ]
    return torch.stack(drawn)


def rank_correlation(full: Tensor, shown: Tensor) -> float | None:
    """Spearman's rank correlation of two (n,) tensors; None if n < 3, or one is constant."""
    if len(full) < _LEAST_RANKED:
        return None
    from scipy.stats import rankdata

    ranks = [rankdata(values.numpy()) for values in (full, shown)]
    if any(np.ptp(each) == 0 for each in ranks):
        return None
    return float(np.corrcoef(*ranks)[0, 1])


def mean_of(values: Sequence[float | None]) -> float | None:
    """The mean of the known values; None if there are none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
