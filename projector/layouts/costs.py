"""Cost functions of positions and correlations.

Every function takes defined neurons only, without NaN.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from projector.layouts.kernels import Target, as_target, guttman_transform

# Distances by differences: the faster way, by squares and products, loses half the digits of a
# small distance.
EXACT = "donot_use_mm_for_euclid_dist"
# Entries of a block of rows: 16 MiB in float32, so that a pass over N × N keeps its temporaries in
# a few such blocks whatever N.
_BLOCK_ENTRIES = 1 << 22
_N_NEAREST = 10
_MOST_PAIRS = 500_000


def dissimilarity(correlation: Tensor) -> Tensor:
    """The target distance of two neurons, 1 − ρ; shape (N, N), at least 0, zero diagonal."""
    return (1 - correlation).clamp_(min=0).fill_diagonal_(0)


def row_blocks(n_rows: int) -> Iterator[slice]:
    """Slices of rows whose N × N blocks are small enough to hold several at a time."""
    n_at_once = max(1, _BLOCK_ENTRIES // max(n_rows, 1))
    for start in range(0, n_rows, n_at_once):
        yield slice(start, min(start + n_at_once, n_rows))


def stress(positions: Tensor, target: Tensor, *, p: float = 2.0) -> Tensor:
    """Mean over pairs i < j of (‖x_i − x_j‖_p − δ_ij)², differentiable; a scalar.

    Kruskal (1964), "Multidimensional scaling by optimizing goodness of fit", unnormalized. The
    memory is O(N²), not N × N × d.

    Args:
        positions: (N, d).
        target: (N, N) target distances, symmetric with a zero diagonal.
        p: order of the norm.
    """
    n = positions.shape[0]
    if n < 2:
        return positions.sum() * 0
    distance = torch.cdist(positions, positions, p=p, compute_mode=EXACT)
    return (distance - target).square().sum() / (n * (n - 1))


def stress_loss(positions: Tensor, correlation: Tensor, p: float) -> Tensor:
    """The :func:`stress` of positions (n, d) for correlations (n, n); differentiable."""
    return stress(positions, dissimilarity(correlation), p=p)


def stress_sums(
    positions: Tensor, target: Tensor | Target, *, p: float = 2.0
) -> tuple[float, float]:
    """Compute (Σ_{i<j} (d_ij − δ_ij)², Σ_{i<j} d_ij²) without an N × N temporary."""
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

    Stress-1 is None if all positions coincide. A single neuron has stress 0.
    """
    n = positions.shape[0]
    misfit, size = stress_sums(positions, target, p=p)
    n_pairs = n * (n - 1) / 2
    return (misfit / n_pairs if n_pairs else 0.0), (math.sqrt(misfit / size) if size else None)


def arrangement_cost(ranks: Tensor, correlation: Tensor) -> float:
    """The cost of a linear arrangement: Σ_ij |π_i − π_j| · (1 + ρ_ij)/2 over ordered pairs.

    Args:
        ranks: (N,), a permutation of 0 … N − 1; ``ranks[i]`` is the rank of neuron i.
        correlation: (N, N).
    """
    places = ranks.to(torch.float64)
    total = 0.0
    for rows in row_blocks(places.numel()):
        apart = (places[rows, None] - places[None, :]).abs()
        total += float((apart * (1 + correlation[rows].double()) / 2).sum())
    return total


def nearest_on_map(positions: Tensor, p: float = 2.0, k: int = _N_NEAREST) -> Tensor:
    """Indices of each neuron's nearest neighbours on the map, (N, k), without itself."""
    found = []
    for rows in row_blocks(positions.shape[0]):
        distance = torch.cdist(positions[rows], positions, p=p, compute_mode=EXACT)
        found.append(_nearest(distance, rows, k))
    return torch.cat(found)


def nearest_by_target(target: Tensor | Target, k: int = _N_NEAREST) -> Tensor:
    """Indices of each neuron's nearest neighbours by target distance, (N, k), without itself.

    Args:
        target: (N, N) target distances, or another form of target.
    """
    form = as_target(target)
    everyone = slice(0, form.n)
    return torch.cat(
        [_nearest(form.block(rows, everyone).clone(), rows, k) for rows in row_blocks(form.n)]
    )


def _nearest(distance: Tensor, rows: slice, k: int) -> Tensor:
    own = torch.arange(rows.start, rows.stop, device=distance.device)
    distance[own - rows.start, own] = torch.inf
    return distance.topk(k, dim=1, largest=False).indices


def overlap_of(a: Tensor, b: Tensor) -> float:
    """Mean over rows of the share of entries that ``a`` and ``b``, (N, k) each, have in common."""
    shared = sum(int((a[:, [i]] == b).sum()) for i in range(a.shape[1]))
    return shared / a.numel()


def rank_correlation(positions: Tensor, target: Target, p: float) -> float | None:
    """Spearman's rank correlation over all pairs, or over a random sample of half a million."""
    n = positions.shape[0]
    if n < 3:
        return None
    if n * (n - 1) // 2 <= _MOST_PAIRS:
        first, second = torch.triu_indices(n, n, offset=1, device=positions.device)
    else:
        generator = torch.Generator().manual_seed(0)
        first = torch.randint(n, (_MOST_PAIRS,), generator=generator)
        second = (first + torch.randint(1, n, (_MOST_PAIRS,), generator=generator)) % n
        first, second = first.to(positions.device), second.to(positions.device)
    difference = positions[first] - positions[second]
    distance = torch.linalg.vector_norm(difference, ord=p, dim=1).cpu().numpy()
    wanted = target.pairs(first, second).cpu().numpy()
    # Side by side: sorting is most of the work, and NumPy sorts on one core, without Python's lock.
    with ThreadPoolExecutor(2) as pool:
        ranks = list(pool.map(_ranks, (distance, wanted)))
    if any(np.ptp(r) == 0 for r in ranks):
        return None
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    """(n,) ranks from 0 on of values (n,); equal ones share the mean of theirs.

    As scipy.stats.rankdata, which takes twice as long and half a second to import.
    """
    order = np.argsort(values)
    ordered = values[order]
    begins = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    ends = np.append(begins[1:], len(values))
    ranks = np.empty(len(values))
    ranks[order] = np.repeat((begins + ends - 1) / 2, ends - begins)
    return ranks
