"""Measure how faithful a picture of particles is in each frame, compared with noise."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from hashlib import blake2b

import torch
from torch import Tensor

from projector.residual.particles.fidelity.figures import (
    Figures,
    figures_of,
    mean_of,
    random_axes,
    rank_correlation,
)
from projector.residual.particles.records import Cloud, Frame, FrameFidelity
from projector.residual.particles.reduction.reduction import Metric

N_NEAREST = 10


def measure_fidelity(
    cloud: Cloud,
    positions: Tensor,
    *,
    metric: Metric,
    k: int = N_NEAREST,
    dim: int = 3,
    linear: bool,
    seed: int = 0,
    left_out: Tensor | None = None,
    controls: Iterable[tuple[Cloud, Tensor]] = (),
) -> tuple[tuple[FrameFidelity, ...], float | None, float | None]:
    """Measure how faithful a picture is in each frame, with controls where there is nothing to
    find.

    Particles with an outlying norm, without a position, or not yet born are left out. Identical
    particles in a frame count once there, because every map gives them the same position.

    * Variance explained: Σ‖p − p̄‖² / Σ‖x − x̄‖² over a frame's particles, which for an orthogonal
      projection is 1 − Σ‖(x − x̄) − (x̂ − x̂ mean)‖² / Σ‖x − x̄‖². A random subspace of d
      dimensions keeps d / W on average. A map fitted on few particles keeps more variance of any
      data, so the same is measured on ``controls``.
    * Neighbours kept: the share of each particle's k nearest in the picture that are as near as its
      k nearest in full space; ties count. It is compared with the mean of 20 random orthogonal
      projections, and with random positions: the share of all particles that are as near, k / (n −
      1) without ties.
    * Displacements: Spearman's rank correlation over particles of ‖x_f − x_{f−1}‖ in full space and
      in the picture, compared with the mean of the same 20 projections. Particles that don't move,
      such as a contribution after it is written, are left out.

    Args:
        cloud: particles in full space.
        positions: (F, P, 3) float32; z is 0 in a picture of two dimensions.
        metric: metric of neighbours in full space.
        k: number of neighbours; at most a fifth of the other particles in a frame.
        dim: dimensions of the picture, 2 or 3.
        linear: whether positions are an orthogonal projection of the vectors.
        seed: seed of the random projections.
        left_out: (P,) bool, particles that don't count, because tokens of a shared beginning count
            once.
        controls: clouds of noise placed by the same pipeline; see
            :func:`projector.residual.particles.fidelity.shuffling.place_shuffled`.

    Returns:
        One record per frame; the rank correlation of displacements pooled over all frames, and the
        same for random projections. A correlation is None if there are fewer than three
        displacements, or all are equal.
    """
    counted = _counted(cloud, positions)
    if left_out is not None:
        counted &= ~left_out
    axes = random_axes(cloud.shape[2], dim, seed)
    share = dim / cloud.shape[2]
    own = list(_all_figures(cloud, positions, counted, metric, k, axes, linear))
    full, shown = _lengths(cloud, counted), _lengths_of(positions, counted)
    random = _by_chance(cloud, full, axes)
    noise = [
        list(_all_figures(each, places, _counted(each, places), metric, k, None, linear))
        for each, places in controls
    ]
    found = []
    for f, (frame, (figures, reason)) in enumerate(zip(cloud.frames, own, strict=True)):
        reasons = [reason] if reason else []
        moves = full[f] > 0
        correlation = rank_correlation(full[f][moves], shown[f][moves]) if f else None
        if f and correlation is None:
            few = "too few particles move" if bool(moves.any()) else "no particle moves"
            reasons.append(f"{few}, so displacements can't be ranked")
        known = _record(frame, figures, [] if reason else [each[f][0] for each in noise])
        found.append(
            replace(
                known,
                variance_random=None if figures.variance is None else min(1.0, share),
                displacement_correlation=correlation,
                displacement_random=random[f] if correlation is not None else None,
                displacement_n=int(moves.sum()),
                reason="; ".join(reasons) or None,
            )
        )
    return tuple(found), rank_correlation(full[full > 0], shown[full > 0]), random[-1]


def _record(frame: Frame, figures: Figures, noise: Sequence[Figures]) -> FrameFidelity:
    return FrameFidelity(
        frame=frame.name,
        layer=frame.layer,
        variance_explained=figures.variance,
        variance_shuffled=mean_of([each.variance for each in noise]),
        neighbours_kept=figures.kept,
        neighbours_chance=figures.chance,
        neighbours_random=figures.random,
        neighbours_shuffled=mean_of([each.kept for each in noise]),
        neighbours_k=figures.k,
    )


def _counted(cloud: Cloud, positions: Tensor) -> Tensor:
    """(F, P) bool: the particles that count in each frame."""
    return cloud.is_born() & ~cloud.outliers & cloud.is_finite() & positions.isfinite().all(dim=-1)


def _all_figures(
    cloud: Cloud,
    positions: Tensor,
    counted: Tensor,
    metric: Metric,
    k: int,
    axes: Tensor | None,
    linear: bool,
) -> Iterator[tuple[Figures, str | None]]:
    """Of each frame, its figures and why one is missing."""
    single = counted & _first_of_equals(cloud, counted)
    for f, chosen in enumerate(single):
        x, p = cloud.at(f, chosen), positions[f][chosen]
        yield figures_of(x, p, metric=metric, k=k, axes=axes, linear=linear)


def _first_of_equals(cloud: Cloud, counted: Tensor) -> Tensor:
    """(F, P) bool: False for what is equal, to the last bit, to another that counts before it."""
    found = torch.ones_like(counted)
    if cloud.is_still:
        # Those that are born first come first, and one frame tells of all.
        order = cloud.born.argsort(stable=True)
        order = order[counted.any(dim=0)[order]]
        found[:, _repeats(cloud.vectors, order)] = False
        return found
    for f, here in enumerate(counted):
        found[f, _repeats(cloud.vectors[f], here.nonzero()[:, 0])] = False
    return found


def _repeats(vectors: Tensor, order: Tensor) -> Tensor:
    """Which of the rows, looked at in this order, came before; (m,) int64."""
    numbers = vectors.numpy()
    seen: set[bytes] = set()
    again = []
    for i in order.tolist():
        # 0 and −0 are one number.
        key = blake2b((numbers[i] + 0.0).tobytes(), digest_size=16).digest()
        if key in seen:
            again.append(i)
        seen.add(key)
    return torch.tensor(again, dtype=torch.int64)


def _lengths(cloud: Cloud, counted: Tensor) -> Tensor:
    """(F, P) float64 displacements in full space; 0 for what stays where it is."""
    if cloud.is_still:
        return torch.zeros(counted.shape).double()
    return _lengths_of(cloud.vectors, counted)


def _lengths_of(vectors: Tensor, counted: Tensor) -> Tensor:
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


def _by_chance(cloud: Cloud, full: Tensor, axes: Tensor) -> list[float | None]:
    """Rank correlations under random projections: of each frame, and last of all frames.

    Args:
        full: (F, P) displacements in full space, of which those that are 0 don't count.
        axes: (draws, W, dim).
    """
    if cloud.is_still:
        return [None] * (len(full) + 1)
    lengths, shown = [], []
    for f, far in enumerate(full):
        moves = far > 0
        step = cloud.vectors[f, moves].double() - cloud.vectors[f - 1, moves].double()
        lengths.append(far[moves])
        shown.append((step @ axes).norm(dim=-1))
    lengths.append(torch.cat(lengths))
    shown.append(torch.cat(shown, dim=1))
    return [
        mean_of([rank_correlation(far, each) for each in found])
        for far, found in zip(lengths, shown, strict=True)
    ]
