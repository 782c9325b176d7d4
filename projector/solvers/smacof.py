"""Stress by majorization (SMACOF)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from projector.objectives import EXACT, row_blocks


@dataclass(frozen=True)
class Descent:
    """Positions found, (N, d) float32, and the stress after each pass, the start's first."""

    positions: Tensor
    stresses: list[float]


def guttman_transform(positions: Tensor, target: Tensor) -> tuple[Tensor, float]:
    """One majorization step, and the raw stress Σ_{i<j} (d_ij − δ_ij)² before it.

    x̄_i = (1/N) Σ_j (δ_ij / d_ij)(x_i − x_j), de Leeuw (1977), for points centred on their mean;
    coincident points (d_ij = 0) exert no force. Stress after it is never higher. Costs one pass
    over ``target`` in blocks of rows; no N × N temporary.
    """
    n = positions.shape[0]
    moved = torch.empty_like(positions)
    misfit = 0.0
    for rows in row_blocks(n):
        distance = torch.cdist(positions[rows], positions, compute_mode=EXACT)
        wanted = target[rows]
        misfit += float((distance - wanted).square_().sum(dtype=torch.float64))
        pull = torch.where(distance > 0, wanted / distance, 0.0)
        moved[rows] = (pull.sum(dim=1, keepdim=True) * positions[rows] - pull @ positions) / n
    return moved, misfit / 2


def minimize_stress(
    target: Tensor,
    start: Tensor,
    *,
    tolerance: float = 1e-5,
    max_passes: int = 1000,
) -> Descent:
    """Positions of locally least stress, from ``start``.

    Each pass takes the relaxed step 2x̄ − x, which also never raises stress and takes about half as
    many passes as x̄ itself (de Leeuw & Heiser 1980); where rounding defeats that promise, the plain
    step is taken. Stops when ten passes together lower stress by less than ``tolerance``, relative.

    Args:
        target: (N, N) float32 distances wanted, symmetric with a zero diagonal.
        start: (N, d) float32.
        tolerance: relative decrease of stress over ten passes at which to stop.
        max_passes: most passes over ``target``.
    """
    n = start.shape[0]
    n_pairs = n * (n - 1) / 2
    if n < 2:
        return Descent(torch.zeros_like(start), [0.0])
    positions = start - start.mean(dim=0)
    plain, raw = guttman_transform(positions, target)
    stresses = [raw / n_pairs]
    for _ in range(max_passes):
        candidate = 2 * plain - positions
        next_plain, next_raw = guttman_transform(candidate, target)
        if next_raw > raw:
            candidate = plain
            next_plain, next_raw = guttman_transform(candidate, target)
            if next_raw >= raw:
                break
        positions, plain, raw = candidate, next_plain, next_raw
        stresses.append(raw / n_pairs)
        if len(stresses) > 10 and stresses[-11] - stresses[-1] <= tolerance * stresses[-11]:
            break
    # One plain step more: relaxed steps overshoot around the minimum.
    _, final_raw = guttman_transform(plain, target)
    if final_raw <= raw:
        positions = plain
        stresses.append(final_raw / n_pairs)
    return Descent(positions - positions.mean(dim=0), stresses)
