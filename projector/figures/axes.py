"""Choose the axes to draw for positions with more than three coordinates, the same in every
picture.
"""

from __future__ import annotations

import torch
from torch import Tensor

N_SHOWN = 3


def shown_axes(positions: Tensor) -> Tensor:
    """The coordinates of a map to draw: all of them, or the three principal axes with the largest
    variance.

    Args:
        positions: (N, d) floating point; the row of a neuron without a position is NaN.

    Returns:
        (N, min(d, 3)) in the same dtype. Up to three dimensions, this is ``positions`` itself.
        Otherwise, they are the principal components x·v of the centred positions, the largest
        variance first, with the sign of each axis v that makes its largest component positive;
        neurons without a position stay NaN.
    """
    if positions.shape[1] <= N_SHOWN:
        return positions
    is_placed = positions.isfinite().all(dim=1)
    shown = torch.full_like(positions[:, :N_SHOWN], torch.nan)
    placed = positions[is_placed].double()
    if not len(placed):
        return shown
    centred = placed - placed.mean(dim=0)
    # Of the d × d moments rather than of the points: all d axes are there, however few neurons are.
    _, axes = torch.linalg.eigh(centred.T @ centred)
    axes = axes.flip(1)[:, :N_SHOWN]
    extreme = axes.gather(0, axes.abs().argmax(dim=0, keepdim=True))
    shown[is_placed] = (centred @ (axes * extreme.sign())).to(positions.dtype)
    return shown
