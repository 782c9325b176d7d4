"""How far a picture of particles can be trusted, frame by frame."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from projector.layouts.costs import EXACT
from projector.residual.particles.near import as_points, squared_distances
from projector.residual.particles.records import Cloud, FrameFidelity
from projector.residual.particles.reduction.reduction import Metric

N_NEAREST = 10
# Particles whose neighbours are looked at, spread evenly over those of a frame.
_MOST_ASKED = 512
# Fewer have no order to speak of.
_LEAST_RANKED = 3
# Of a squared distance, beside the mean of ‖x‖²: what is nearer than this is in the same place.
_TIE = 1e-10
_N_DRAWS = 20


def measure_fidelity(
    cloud: Cloud,
    positions: Tensor,
    *,
    metric: Metric,
    k: int = N_NEAREST,
    linear: bool,
    seed: int = 0,
) -> tuple[tuple[FrameFidelity, ...], float | None]:
    """What a picture keeps of full space in each frame, beside where there is nothing to keep.

    Particles of an outlying norm, without a place, or not born are left out.

    * Variance explained: Σ‖p − p̄‖² / Σ‖x − x̄‖² over a frame's particles, which for an orthogonal
      projection is 1 − Σ‖(x − x̄) − (x̂ − x̂ mean)‖² / Σ‖x − x̄‖². A random subspace of d dimensions
      keeps d / W on average.
    * Neighbours kept: of each particle's k nearest in the picture, the share that are as near as
      its k nearest in full space; ties count. Chance is the share of all particles that are as
      near: k / (n − 1) where there are no ties.
    * Displacements: Spearman's rank correlation over particles of ‖x_f − x_{f−1}‖ in full space and
      in the picture; the same under random orthogonal projections, mean of 20, tells how much is
      kept by any projection. Particles that stay where they are, such as a contribution once it is
      written, are left out.

    Args:
        cloud: particles in full space.
        positions: (F, P, 3) float32; z is 0 in a picture of two dimensions.
        metric: of neighbours in full space.
        k: how many neighbours; fewer where a frame has fewer than 2·k + 1 particles.
        linear: whether positions are an orthogonal projection of the vectors.
        seed: of the random projections.

    Returns:
        One record a frame, and the rank correlation of displacements of all frames pooled; None
        where there are fewer than three, or all are equal.
    """
    counted = _counted(cloud, positions)
    dim = 3 if bool(positions[..., 2].nan_to_num().any()) else 2
    full = displacement_lengths(cloud.vectors, counted)
    shown = displacement_lengths(positions, counted)
    random = _by_chance(cloud, full, dim, seed)
    found = []
    for f, frame in enumerate(cloud.frames):
        x, p = cloud.vectors[f][counted[f]], positions[f][counted[f]]
        figures, reason = _of_frame(x, p, metric, k, dim if linear else None)
        reasons = [reason] if reason else []
        moves = full[f] > 0
        correlation = rank_correlation(full[f][moves], shown[f][moves]) if f else None
        if f and correlation is None:
            few = "too few particles move" if bool(moves.any()) else "no particle moves"
            reasons.append(f"{few}, so displacements can't be ranked")
        found.append(
            FrameFidelity(
                frame=frame.name,
                layer=frame.layer,
                **figures,
                displacement_correlation=correlation,
                displacement_random=random[f] if correlation is not None else None,
                displacement_n=int(moves.sum()),
                reason="; ".join(reasons) or None,
            )
        )
    return tuple(found), rank_correlation(full[full > 0], shown[full > 0])


def random_displacement_correlation(
    cloud: Cloud, positions: Tensor, *, seed: int = 0
) -> float | None:
    """The pooled rank correlation of displacements that random projections keep, mean of 20.

    Args:
        cloud, positions, seed: as :func:`measure_fidelity` takes them.
    """
    counted = _counted(cloud, positions)
    dim = 3 if bool(positions[..., 2].nan_to_num().any()) else 2
    return _by_chance(cloud, displacement_lengths(cloud.vectors, counted), dim, seed)[-1]


def _counted(cloud: Cloud, positions: Tensor) -> Tensor:
    """(F, P) bool: the particles that count in each frame."""
    is_finite = torch.stack([vectors.isfinite().all(dim=-1) for vectors in cloud.vectors])
    is_placed = positions.isfinite().all(dim=-1)
    return cloud.is_born() & ~cloud.outliers & is_finite & is_placed


def _of_frame(
    x: Tensor, p: Tensor, metric: Metric, k: int, dim: int | None
) -> tuple[dict[str, float], str | None]:
    """Figures of one frame's particles x (n, W) at p (n, 3), or why there are none.

    Args:
        dim: dimensions of the picture, where its map is linear.
    """
    if len(x) < _LEAST_RANKED:
        return {}, "fewer than three particles count in this frame"
    whole = x.double()
    spread = float(whole.var(dim=0, correction=0).sum())
    if not spread > _TIE * float(whole.square().sum(dim=1).mean()):
        return {}, "all particles of this frame are in the same place"
    kept, chance = neighbours_kept(x, p, metric=metric, k=k)
    figures = {"neighbours_kept": kept, "neighbours_chance": chance}
    if dim is not None:
        shown = float(p.double().var(dim=0, correction=0).sum())
        figures["variance_explained"] = min(1.0, shown / spread)
        figures["variance_random"] = min(1.0, dim / x.shape[1])
    return figures, None


def neighbours_kept(x: Tensor, p: Tensor, *, metric: Metric, k: int) -> tuple[float, float]:
    """The share of nearest on the map that are nearest in full space, and of all that are.

    Args:
        x: (n, W), three rows at least.
        p: (n, 3) their places.
        metric: of full space.
        k: how many nearest; at most half of the others.
    """
    n = len(x)
    k = min(k, max(1, (n - 1) // 2))
    asked = torch.linspace(0, n - 1, min(n, _MOST_ASKED)).round().long()
    points = as_points(x, metric)
    own = torch.arange(len(asked)), asked
    far = squared_distances(points[asked], points)
    far[own] = torch.inf
    limit = far.kthvalue(k, dim=1, keepdim=True).values
    is_near = far <= limit + _TIE * points.square().sum(dim=1).mean()
    shown = torch.cdist(p[asked].double(), p.double(), compute_mode=EXACT)
    shown[own] = torch.inf
    nearest = shown.topk(k, dim=1, largest=False).indices
    kept = is_near.gather(1, nearest).double().mean()
    return float(kept), float(is_near.sum(dim=1).double().mean() / (n - 1))


def displacement_lengths(vectors: Tensor, counted: Tensor) -> Tensor:
    """(F, P) float64 ‖x_f − x_{f−1}‖; 0 in the first frame, and where one of both isn't counted.

    Args:
        vectors: (F, P, W).
        counted: (F, P) bool.
    """
    lengths = torch.zeros(vectors.shape[:2]).double()
    for f in range(1, len(vectors)):
        both = counted[f] & counted[f - 1]
        lengths[f, both] = (vectors[f, both].double() - vectors[f - 1, both]).norm(dim=-1)
    return lengths


def rank_correlation(full: Tensor, shown: Tensor) -> float | None:
    """Spearman's, of two (n,) tensors; None where n is below 3, or all of one are equal."""
    if len(full) < _LEAST_RANKED:
        return None
    from scipy.stats import rankdata

    ranks = [rankdata(values.numpy()) for values in (full, shown)]
    if any(np.ptp(each) == 0 for each in ranks):
        return None
    return float(np.corrcoef(*ranks)[0, 1])


def _by_chance(cloud: Cloud, full: Tensor, dim: int, seed: int) -> list[float | None]:
    """Rank correlations under random orthogonal projections: of each frame, and last of all.

    Args:
        full: (F, P) displacements in full space, of which those that are 0 don't count.
    """
    generator = torch.Generator().manual_seed(seed)
    width = cloud.vectors.shape[-1]
    drawn = [
        torch.linalg.qr(
            torch.randn(width, min(dim, width), generator=generator, dtype=torch.float64)
        ).Q
        for _ in range(_N_DRAWS)
    ]
    axes = torch.cat(drawn, dim=1)
    lengths, shown = [], []
    for f, far in enumerate(full):
        moves = far > 0
        step = cloud.vectors[f, moves].double() - cloud.vectors[f - 1, moves].double()
        lengths.append(far[moves])
        shown.append((step @ axes).unflatten(1, (_N_DRAWS, -1)).norm(dim=-1))
    lengths.append(torch.cat(lengths))
    shown.append(torch.cat(shown))
    return [
        _mean([rank_correlation(far, each) for each in found.T])
        for far, found in zip(lengths, shown, strict=True)
    ]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
