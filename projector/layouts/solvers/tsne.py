"""t-SNE on exact distances: positions that preserve the nearest neighbours by ρ.

van der Maaten & Hinton (2008), "Visualizing data using t-SNE". Repulsion is exact, over all pairs.
For the size of a layer, this is cheaper than tree approximations, and it works in any number of
dimensions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from projector.layouts.costs import nearest_by_target
from projector.layouts.kernels import Target, as_target

# Neighbours that attract a neuron, and how many of them count. Between neurons most ρ are near 0,
# so that wider kernels, usual elsewhere, reach neurons that are no neighbours.
N_NEAR = 15
PERPLEXITY = 11.25
# A classical start has the large shape already: attraction needs little exaggeration to keep it.
_EXAGGERATION, _N_EXAGGERATED, N_STEPS = 1.5, 100, 300
_START_SPREAD, _JITTER = 1e-4, 1e-6
_MOMENTUM_EXAGGERATED, _MOMENTUM = 0.5, 0.8
_LEAST_GAIN, _LEAST_RATE = 0.01, 50.0
_N_HALVINGS = 50
# Rows of pairs at once: they stay in a core's cache.
_CACHE_ENTRIES, _GPU_ENTRIES = 1 << 17, 1 << 24


def embed(
    target: Tensor | Target,
    start: Tensor,
    generator: torch.Generator,
    *,
    n_near: int = N_NEAR,
    perplexity: float = PERPLEXITY,
    exaggeration: float = _EXAGGERATION,
    n_exaggerated: int = _N_EXAGGERATED,
    n_steps: int = N_STEPS,
) -> Tensor:
    """Find positions (N, d) float32, centred, by gradient descent on KL(P‖Q).

    Args:
        target: (N, N) target distances, or another form of target.
        start: (N, d) initial positions; their scale is ignored.
        generator: random generator on the CPU, for the jitter that separates neurons with equal
            starts.
        n_near: number of neighbours that attract a neuron.
        perplexity: perplexity of each neuron's affinities; it is limited to ¾ of ``n_near``.
        exaggeration: factor of attraction in the first ``n_exaggerated`` of ``n_steps`` steps.
    """
    n, dim = start.shape
    if n < 3:
        return start - start.mean(dim=0) if n else start
    attraction = _Attraction(*affinities(target, n_near, perplexity))
    positions = start - start.mean(dim=0)
    positions = positions * (_START_SPREAD / positions.std().clamp(min=1e-12))
    jitter = torch.randn(n, dim, generator=generator).to(start.device)
    positions += _JITTER * jitter
    velocity, gain = torch.zeros_like(positions), torch.ones_like(positions)
    for step in range(n_steps):
        early = step < n_exaggerated
        factor = exaggeration if early else 1.0
        # Belkina et al. (2019), "Automated optimized parameters for t-SNE".
        rate = max(n / factor, _LEAST_RATE)
        repulsion, total = _repulsion(positions)
        gradient = 4 * (factor * attraction(positions) - repulsion / total)
        is_along = gradient * velocity > 0
        gain = torch.where(is_along, gain * 0.8, gain + 0.2).clamp_(min=_LEAST_GAIN)
        velocity.mul_(_MOMENTUM_EXAGGERATED if early else _MOMENTUM)
        velocity -= rate * gain * gradient
        positions += velocity
        positions -= positions.mean(dim=0)
    return positions


def affinities(
    target: Tensor | Target, n_near: int, perplexity: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Symmetric affinities P of neurons and their nearest neighbours, with sum 1.

    p_{j|i} ∝ exp(−β_i δ_ij²) over the nearest neighbours of i only, with β_i such that the entropy
    is the logarithm of the perplexity; P = (p + pᵀ)/2N.

    Returns:
        Rows and columns (E,) int64, sorted, and the values of P (E,) float32.
    """
    form = as_target(target)
    n = form.n
    near = nearest_by_target(form, min(n_near, n - 1))
    k, device = near.shape[1], near.device
    own = torch.arange(n, device=device).repeat_interleave(k)
    square = form.pairs(own, near.reshape(-1)).double().square().reshape(n, k)
    conditional = _calibrated(square, min(perplexity, 0.75 * k))
    rows = torch.cat([own, near.reshape(-1)])
    columns = torch.cat([near.reshape(-1), own])
    values = conditional.reshape(-1).repeat(2) / (2 * n)
    entries, place = torch.unique(rows * n + columns, return_inverse=True)
    summed = torch.zeros(len(entries), dtype=torch.float64, device=device)
    # At most two values are added up, so that their order does not matter.
    summed.index_add_(0, place, values)
    return entries // n, entries % n, summed.float()


def _calibrated(square: Tensor, perplexity: float) -> Tensor:
    """(N, k) probabilities exp(−β_i δ²) of this perplexity in each row, from (N, k) δ²."""
    beyond = square - square.min(dim=1, keepdim=True).values
    wanted = math.log(max(perplexity, 1.0))
    scale = beyond.mean(dim=1, keepdim=True).clamp(min=1e-300)
    low, high = torch.zeros_like(scale), torch.full_like(scale, math.inf)
    beta = torch.ones_like(scale)
    beyond = beyond / scale
    weights = torch.ones_like(beyond)
    for _ in range(_N_HALVINGS):
        weights = (-beta * beyond).exp()
        total = weights.sum(dim=1, keepdim=True)
        entropy = total.log() + beta * (weights * beyond).sum(dim=1, keepdim=True) / total
        is_wide = entropy > wanted
        low, high = torch.where(is_wide, beta, low), torch.where(is_wide, high, beta)
        beta = torch.where(high.isinf(), 2 * beta, (low + high) / 2)
    return weights / weights.sum(dim=1, keepdim=True)


class _Attraction:
    """Σ_j p_ij w_ij (y_i − y_j) of every neuron i, w_ij = 1/(1 + ‖y_i − y_j‖²)."""

    def __init__(self, rows: Tensor, columns: Tensor, values: Tensor) -> None:
        self._rows, self._columns, self._values = rows, columns, values
        # Every neuron has neighbours.
        self._n_of_each = torch.bincount(rows)

    def __call__(self, positions: Tensor) -> Tensor:
        apart = positions[self._rows] - positions[self._columns]
        weights = self._values / (1 + apart.square().sum(dim=1))
        return torch.segment_reduce(
            apart * weights[:, None], "sum", lengths=self._n_of_each, axis=0
        )


def _repulsion(positions: Tensor) -> tuple[Tensor, Tensor]:
    """(Σ_j w_ij² (y_i − y_j), Σ_{i≠j} w_ij): (N, d) and a scalar."""
    n = len(positions)
    ones = positions.new_ones(n, 1)
    square = positions.square().sum(dim=1, keepdim=True)
    # 1 + ‖y_i − y_j‖² as one product.
    left = torch.cat([-2 * positions, 1 + square, ones], dim=1)
    right = torch.cat([positions, ones, square], dim=1).T.contiguous()
    extended = torch.cat([positions, ones], dim=1).T.contiguous()
    most = _CACHE_ENTRIES if positions.device.type == "cpu" else _GPU_ENTRIES
    n_rows = max(1, min(n, most // n))
    buffer = positions.new_empty(n_rows, n)
    sums = positions.new_empty(n)
    moments = positions.new_empty(positions.shape[1] + 1, n)
    for first in range(0, n, n_rows):
        rows = slice(first, min(first + n_rows, n))
        weights = buffer[: rows.stop - first]
        torch.mm(left[rows], right, out=weights)
        # Rounding may put it a little below 1.
        weights.clamp_(min=1).reciprocal_()
        torch.sum(weights, dim=1, out=sums[rows])
        weights.square_()
        moments[:, rows] = extended @ weights.T
    force = positions * moments[-1:].T - moments[:-1].T
    return force, sums.double().sum() - n
