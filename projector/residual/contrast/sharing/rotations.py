"""Random rotations: the control for every figure of shared directions.

A rotation keeps all lengths and angles within one layer's vectors, and moves them to other
directions of the stream, uniformly (Haar). The figure after a rotation is due to chance.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from projector.residual.circuits.factors import random_axes

__all__ = ["random_spans", "rotated_products"]

# Up to this width rotations are drawn; beyond it, what they give is normal to within 3 %.
_MOST_DRAWN = 128
_AT_ONCE = 2**22


def random_spans(width: int, k: int, n_draws: int, seed: int) -> Tensor:
    """Draw subspaces of k orthonormal directions, (n_draws, width, k) float32, uniform over all
    subspaces.

    A random rotation of a fixed subspace has this distribution, so no full rotation of ``width``
    coordinates is needed.
    """
    generator = torch.Generator().manual_seed(seed)
    return random_axes((n_draws, width, k), generator)


def rotated_products(first: Tensor, second: Tensor, n_draws: int, seed: int) -> Tensor:
    """Draw Σᵢ ⟨firstᵢ, R secondᵢ⟩ for random rotations R, with (n, H) each: (n_draws,) float64.

    It is tr(C R) with C = secondᵀ first: its mean is 0 and its variance ‖C‖²_F / H. For a wide
    stream it is drawn from the normal distribution with that variance; the total variation distance
    to the true distribution is at most 2√3 / (H − 1) (Meckes 2008, "Linear functions on the
    classical matrix groups", Transactions of the AMS 360); for a narrow one rotations are drawn.
    """
    generator = torch.Generator().manual_seed(seed)
    n, width = first.shape
    first, second = first.double(), second.double()
    if width > _MOST_DRAWN:
        if n < width:
            square = ((first @ first.T) * (second @ second.T)).sum()
        else:
            square = (second.T @ first).square().sum()
        size = math.sqrt(float(square.clamp_min(0)) / width)
        return size * torch.randn(n_draws, generator=generator, dtype=torch.float64)
    product = second.T @ first
    found = []
    step = max(1, _AT_ONCE // (width * width))
    for start in range(0, n_draws, step):
        shape = (min(step, n_draws - start), width, width)
        rotations = random_axes(shape, generator).double()
        found.append((rotations * product).sum(dim=(1, 2)))
    return torch.cat(found)
