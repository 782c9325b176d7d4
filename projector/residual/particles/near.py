"""The nearest particles of each particle in full space, frame by frame."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from projector.residual.particles.records import Cloud
from projector.residual.particles.reduction.reduction import Metric

# Numbers of a block of distances, or of a block of differences, in float64: 32 MiB.
_BLOCK = 1 << 22


def nearest(cloud: Cloud, k: int, metric: Metric) -> tuple[Tensor, Tensor]:
    """Find each particle's k nearest neighbours in full space, and their distances.

    If particles are only added and never move, like contributions, a frame's neighbours are updated
    from the previous frame and the added particles.

    Args:
        cloud: P particles in F frames.
        k: number of neighbours; fewer if a frame has fewer particles.
        metric: "euclidean", in units of the vectors; or "cosine", 1 − cos. A zero vector has cosine
            distance 1 to every other.

    Returns:
        neighbours (F, P, k) int32, nearest first, −1 for missing ones; distances (F, P, k) float32,
        NaN for missing ones. A particle that doesn't exist yet, or isn't finite, has no neighbours
        and is no other's neighbour.
    """
    n_frames, n_particles, _ = cloud.shape
    neighbours = torch.full((n_frames, n_particles, k), -1, dtype=torch.int32)
    distances = torch.full((n_frames, n_particles, k), torch.nan)
    if not k:
        return neighbours, distances
    can_be = cloud.is_born() & cloud.is_finite()
    was_there = torch.zeros(n_particles, dtype=torch.bool)
    found = torch.full((n_particles, k), -1), torch.full((n_particles, k), torch.inf).double()
    points = _Points.of(cloud.vectors, metric) if cloud.is_still else None
    for frame, is_there in enumerate(can_be):
        stays = was_there & is_there
        if not cloud.is_still:
            vectors = cloud.vectors[frame]
            points = _Points.of(vectors, metric)
            if frame:
                stays &= (vectors == cloud.vectors[frame - 1]).all(dim=-1)
        if not torch.equal(stays, was_there):
            stays = torch.zeros_like(stays)
        assert points is not None
        found = _join(points, found, stays, is_there, k)
        was_there = is_there
        chosen, far = found
        is_none = chosen < 0
        neighbours[frame] = chosen.to(torch.int32)
        distances[frame] = torch.where(is_none, torch.nan, _as_distance(far, metric)).float()
    return neighbours, distances


def as_points(vectors: Tensor, metric: Metric) -> Tensor:
    """Transform vectors so that squared Euclidean distances have the order of the metric, (n, W)
    float64.

    For cosine, they have length 1: ‖a − b‖² = 2·(1 − cos).
    """
    whole = vectors.double()
    if metric == "euclidean":
        return whole - whole[whole.isfinite().all(dim=-1)].mean(dim=0)
    lengths = whole.norm(dim=-1, keepdim=True)
    return torch.where(lengths > 0, whole / lengths, 0.0)


@dataclass(frozen=True, eq=False)
class _Points:
    """What :func:`as_points` gives, for some rows at a time: in float64 all take twice the room.

    Attributes:
        vectors: (P, W) float32.
        middle: (W,) float64, what is taken off each; None for cosine.
    """

    vectors: Tensor
    middle: Tensor | None

    @classmethod
    def of(cls, vectors: Tensor, metric: Metric) -> _Points:
        if metric == "cosine":
            return cls(vectors, None)
        is_finite = vectors.isfinite().all(dim=-1)
        known = vectors if bool(is_finite.all()) else vectors[is_finite]
        return cls(vectors, known.mean(dim=0, dtype=torch.float64))

    def take(self, which: Tensor) -> Tensor:
        """(n, W) float64."""
        rows = self.vectors[which]
        return as_points(rows, "cosine") if self.middle is None else rows.double() - self.middle

    def n_at_once(self, n_each: int = 1) -> int:
        """How many rows, each with so many others, fill a block."""
        return max(1, _BLOCK // max(1, n_each * self.vectors.shape[1]))


def squared_distances(points: Tensor, others: Tensor) -> Tensor:
    """‖a − b‖² of points (n, W) and (m, W), as (n, m) float64, accurate to 1e-15 of the largest
    ‖a‖².
    """
    lengths = points.square().sum(dim=1)[:, None] + others.square().sum(dim=1)[None]
    return lengths.addmm_(points, others.T, alpha=-2).clamp_(min=0)


def _as_distance(squares: Tensor, metric: Metric) -> Tensor:
    return squares.sqrt() if metric == "euclidean" else squares / 2


def _join(
    points: _Points, before: tuple[Tensor, Tensor], stays: Tensor, is_there: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    """Neighbours (P, k) int64 and their squared distances once those that don't stay have joined.

    Args:
        before: the same before they joined, right for those that stay.
        stays, is_there: (P,) bool.
    """
    old, new, everyone = (mask.nonzero()[:, 0] for mask in (stays, is_there & ~stays, is_there))
    chosen = torch.full_like(before[0], -1)
    squares = torch.full_like(before[1], torch.inf)
    chosen[new], squares[new] = _find(points, new, everyone, k)
    if not len(old):
        return chosen, squares
    added, far = _find(points, old, new, k)
    both, far = torch.cat([before[0][old], added], 1), torch.cat([before[1][old], far], 1)
    squares[old], order = far.sort(dim=1, stable=True)[0][:, :k], far.argsort(dim=1, stable=True)
    chosen[old] = both.gather(1, order[:, :k])
    return chosen, squares


def _find(points: _Points, of: Tensor, among: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k nearest ``among`` for each ``of``, itself left out: (n, k) int64 −1, float64 +inf."""
    chosen = torch.full((len(of), k), -1)
    squares = torch.full((len(of), k), torch.inf).double()
    n_found = min(k, len(among))
    if not len(of) or not n_found:
        return chosen, squares
    n_rows = min(max(1, _BLOCK // len(among)), points.n_at_once())
    for some in torch.arange(len(of)).split(n_rows):
        own = points.take(of[some])
        parts = among.split(points.n_at_once())
        apart = torch.cat([squared_distances(own, points.take(part)) for part in parts], dim=1)
        apart[of[some][:, None] == among[None]] = torch.inf
        near = apart.topk(n_found, dim=1, largest=False)
        place = among[near.indices].where(near.values < torch.inf, -1)
        chosen[some, :n_found] = place
        squares[some, :n_found] = _exactly(points, of[some], place)
    order = squares.argsort(dim=1, stable=True)
    return chosen.gather(1, order), squares.gather(1, order)


def _exactly(points: _Points, of: Tensor, to: Tensor) -> Tensor:
    """(n, k) float64 squared distances by differences, of which no digit cancels; +inf to −1."""
    found = torch.full(to.shape, torch.inf).double()
    for some in torch.arange(len(of)).split(points.n_at_once(to.shape[1])):
        apart = points.take(of[some])[:, None] - points.take(to[some].clamp(min=0).flatten()).view(
            len(some), to.shape[1], -1
        )
        found[some] = apart.square().sum(dim=-1)
    return found.masked_fill(to < 0, torch.inf)
