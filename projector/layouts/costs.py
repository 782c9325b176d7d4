"""What makes positions good: pure functions of positions and correlation.

Every function takes live neurons only: no NaN.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from projector.layouts.kernels import Target, as_target, guttman_transform

# Distances by differences: the faster way, by squares and products, loses half the digits of a
# small distance.
EXACT = "donot_use_mm_for_euclid_dist"
# Entries of a block of rows: 16 MiB in float32, so that a pass over N × N keeps its temporaries in
# a few such blocks whatever N.
_BLOCK_ENTRIES = 1 << 22


def dissimilarity(correlation: Tensor) -> Tensor:
    """The distance two neurons should have, 1 − ρ; shape (N, N), at least 0, zero diagonal."""
    return (1 - correlation).clamp_(min=0).fill_diagonal_(0)


def row_blocks(n_rows: int) -> Iterator[slice]:
    """Slices of rows whose N × N blocks are small enough to hold several at a time."""
    n_at_once = max(1, _BLOCK_ENTRIES // max(n_rows, 1))
    for start in range(0, n_rows, n_at_once):
        yield slice(start, min(start + n_at_once, n_rows))


def stress(positions: Tensor, target: Tensor, *, p: float = 2.0) -> Tensor:
    """Mean over pairs i < j of (‖x_i − x_j‖_p − δ_ij)², differentiable; a scalar.

    Kruskal (1964), "Multidimensional scaling by optimizing goodness of fit", unnormalized. Memory
    is O(N²), never N × N × d.

    Args:
        positions: (N, d).
        target: (N, N) distances wanted, symmetric with a zero diagonal.
        p: order of the norm.
    """
    n = positions.shape[0]
    if n < 2:
        return positions.sum() * 0
    distance = torch.cdist(positions, positions, p=p, compute_mode=EXACT)
    return (distance - target).square().sum() / (n * (n - 1))


def stress_sums(
    positions: Tensor, target: Tensor | Target, *, p: float = 2.0
) -> tuple[float, float]:
    """(Σ_{i<j} (d_ij − δ_ij)², Σ_{i<j} d_ij²), never an N × N temporary."""
    target = as_target(target)
    if p == 2:
        centred = positions.double() - positions.double().mean(dim=0)
        size = len(positions) * float(centred.square().sum())
        return guttman_transform(positions, target).raw_stress, size
    misfit = size = 0.0
    for rows in row_blocks(positions.shape[0]):
        distance = torch.cdist(positions[rows], positions, p=p, compute_mode=EXACT)
        wanted = target.block(rows, slice(0, target.n))
        misfit += float((distance - wanted).square().sum(dtype=torch.float64))
        size += float(distance.square().sum(dtype=torch.float64))
    return misfit / 2, size / 2


def stress_figures(
    positions: Tensor, target: Tensor | Target, *, p: float = 2.0
) -> tuple[float, float | None]:
    """Stress (mean over pairs) and Kruskal's stress-1, √(Σ(d − δ)² / Σd²).

    Stress-1 is None where all positions coincide. One neuron alone has stress 0.
    """
    n = positions.shape[0]
    misfit, size = stress_sums(positions, target, p=p)
    n_pairs = n * (n - 1) / 2
    return (misfit / n_pairs if n_pairs else 0.0), (math.sqrt(misfit / size) if size else None)


def arrangement_cost(ranks: Tensor, correlation: Tensor) -> float:
    """Σ_ij |π_i − π_j| · (1 + ρ_ij)/2 over ordered pairs: the cost of a linear arrangement.

    Args:
        ranks: (N,) a permutation of 0 … N − 1; ``ranks[i]`` is the place of neuron i.
        correlation: (N, N).
    """
    places = ranks.to(torch.float64)
    total = 0.0
    for rows in row_blocks(places.numel()):
        apart = (places[rows, None] - places[None, :]).abs()
        total += float((apart * (1 + correlation[rows].double()) / 2).sum())
    return total
