"""Draw two controls from a matrix of correlations, in which there is nothing to find.

*Shuffled*: the entries of ρ off the diagonal are exchanged at random. No neuron keeps its partners,
and the distribution of ρ over pairs stays the same. Both halves of the corpus are exchanged in the
same way, so that they agree entry by entry as much as before.

*Same spectrum*: Q ρ Qᵀ, Q a random rotation (Haar's measure), each row and column divided by the
root of its diagonal entry, so that the diagonal is 1 again. Eigenvalues are kept up to that
division, and the axes have random directions: if one axis dominates, its two ends remain, but no
group of neurons does. Both halves are rotated by the same Q. Rotation is linear, so this equals
rotating ρ and adding each half's rotated residual: the halves keep their spectra, and differ from
each other as much as before.

Sources: the rotation is from the QR factors of a normal matrix, signs corrected (Mezzadri 2007, How
to Generate Random Matrices from the Classical Compact Groups).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

N_DRAWS = 5
# Bytes per entry of an N × N matrix while a draw is made: ρ and two halves, the three of the draw,
# the rotation, and a product.
DRAWING_BYTES = 32

# Takes one or several (n, n) float32 matrices without NaN, and a seed; changes all alike.
Control = Callable[[tuple[Tensor, ...], int], tuple[Tensor, ...]]


def shuffle(matrices: tuple[Tensor, ...], seed: int) -> tuple[Tensor, ...]:
    """Exchange the entries off the diagonal at random, in the same way in every matrix.

    Args:
        matrices: (n, n) each, symmetric.
    """
    n = matrices[0].shape[0]
    rows, columns = torch.triu_indices(n, n, 1)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(rows.numel()))
    at, mirrored = rows * n + columns, columns * n + rows
    found = []
    for each in matrices:
        drawn = torch.ones_like(each)
        values = each.flatten()[at][order]
        drawn.view(-1)[at] = values
        drawn.view(-1)[mirrored] = values
        found.append(drawn)
    return tuple(found)


def rotate(matrices: tuple[Tensor, ...], seed: int) -> tuple[Tensor, ...]:
    """Rotate the axes at random, in the same way for every matrix; the diagonal is 1 again.

    Costs two products of n × n matrices for each, and a QR factorisation.

    Args:
        matrices: (n, n) each, correlations.
    """
    rotation = random_rotation(matrices[0].shape[0], seed)
    found = []
    for each in matrices:
        turned = rotation @ each @ rotation.T
        scale = turned.diagonal().clamp_min(1e-12).rsqrt()
        turned *= scale
        turned *= scale[:, None]
        # Rounding makes it slightly asymmetric.
        turned = (turned + turned.T) / 2
        turned.fill_diagonal_(1)
        found.append(turned)
    return tuple(found)


def random_rotation(n: int, seed: int) -> Tensor:
    """A random orthogonal matrix, (n, n) float32, uniform in Haar's measure."""
    normal = torch.randn(n, n, generator=torch.Generator().manual_seed(seed))
    q, r = torch.linalg.qr(normal)
    return q * torch.where(r.diagonal() < 0, -1.0, 1.0)


CONTROLS: dict[str, Control] = {"shuffled": shuffle, "same_spectrum": rotate}
