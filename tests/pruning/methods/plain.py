"""The same choices as the package makes, step by step: slow, and with nothing kept back."""

from __future__ import annotations

import torch
from torch import Tensor

from pruning.methods.standins import Surroundings


def hostile_moments(n: int, seed: int, *, n_tokens: int = 300) -> Tensor:
    """Second moments (n, n) of neurons of few causes; among them copies, opposites and dead ones.

    From fewer tokens than neurons they are singular besides. The causes are those of any seed.
    """
    causes, tokens = torch.Generator().manual_seed(0), torch.Generator().manual_seed(seed)

    def normal(generator: torch.Generator, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    rows = (normal(tokens, n_tokens, 12) + 0.3) @ normal(causes, 12, n)
    rows = (rows + 0.3 * normal(tokens, n_tokens, n)) * normal(causes, n).exp()
    rows[:, 3] = rows[:, n - 4]
    rows[:, 5] = -2 * rows[:, 8]
    rows[:, 7] = 0
    # One of huge activations, and one that hardly speaks.
    rows[:, 1] *= 1e3
    rows[:, 2] *= 1e-4
    return rows.T @ rows / n_tokens


def eliminated(moments: Tensor, output: Tensor, n_removed: int) -> tuple[list[int], list[float]]:
    """Who goes, and what each costs: optimal brain surgery, all matrices updated each time."""
    inverse, weights = torch.linalg.inv(moments), output.clone()
    left = torch.ones(len(moments), dtype=torch.bool)
    order, costs = [], []
    for _ in range(n_removed):
        losses = torch.where(left, weights.pow(2).sum(dim=0) / inverse.diagonal(), torch.inf)
        j = int(losses.argmin())
        order.append(j)
        costs.append(float(losses[j]))
        row = inverse[j] / inverse[j, j]
        weights -= torch.outer(weights[:, j].clone(), row)
        inverse -= torch.outer(inverse[:, j].clone(), row)
        left[j] = False
        inverse[j], inverse[:, j], inverse[j, j], weights[:, j] = 0, 0, 1, 0
    return order, costs


def handed_over(
    moments: Tensor, output: Tensor, around: Surroundings, n_removed: int
) -> tuple[int, ...]:
    """Who stays when the cheapest neuron goes each time, all losses computed anew."""
    left = set(range(len(moments)))
    weights = output.clone()
    for _ in range(n_removed):
        losses, told = {}, {}
        for j in left:
            by = [k for k in around.index[j][around.exists[j]].tolist() if k in left]
            told[j] = by, torch.linalg.solve(moments[by][:, by], moments[by, j])
            rest = moments[j, j] - told[j][1] @ moments[by, j]
            losses[j] = float(weights[:, j].pow(2).sum() * rest.clamp_min(0))
        gone = min(left, key=lambda j: losses[j])
        by, factors = told[gone]
        weights[:, by] += torch.outer(weights[:, gone], factors)
        left.remove(gone)
    return tuple(sorted(left))


def ridge_fit(
    inner: Tensor,
    cross: Tensor,
    held_inner: Tensor,
    held_cross: Tensor,
    held_power: float,
    start: Tensor,
    shares: tuple[float, float],
) -> Tensor:
    """The fit of an output projection about zero, each damping solved by elimination, (H, K)."""

    def solved(a: Tensor, b: Tensor, damping: float) -> Tensor:
        own = a.diagonal()
        level = damping * own[own > 0].median()
        step = torch.linalg.solve(a + level * torch.eye(len(a), dtype=a.dtype), b - a @ start.T)
        return start + step.T

    def loss(weights: Tensor) -> float:
        told = 2 * (weights.T * held_cross).sum() - ((weights @ held_inner) * weights).sum()
        return held_power - float(told)

    found = {d: loss(solved(inner, cross, d)) for d in (10.0**k for k in range(-7, 2))}
    best = min(found, key=lambda d: found[d])
    if found[best] >= loss(start):
        return start
    a, b = shares
    return solved(a * inner + b * held_inner, a * cross + b * held_cross, best)
