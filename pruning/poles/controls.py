"""Two controls: correlations in which there is nothing to find, drawn from those that there are.

*Shuffled*: the entries of ρ off the diagonal are exchanged at random. Each neuron keeps no partner,
and how strong pairs are stays as it is. Both halves of the corpus are exchanged in the same way, so
that they agree with one another entry by entry as they did.

*Same spectrum*: Q ρ Qᵀ, Q a random rotation (Haar's measure), each row and column divided by the
root of its diagonal entry, so that the diagonal is 1 again. Eigenvalues are kept up to that
division, and the axes point anywhere: where one axis dominates, its two ends are still there, but
no group of neurons is. Both halves are turned by the same Q. Rotation is linear, so that is the
same as to turn ρ and to add to each half its own residual, turned: the halves keep their spectra,
and differ from one another by as much as they did.

Sources: the rotation is from the QR factors of a normal matrix, signs corrected (Mezzadri 2007, How
to Generate Random Matrices from the Classical Compact Groups).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

N_DRAWS = 5
# Bytes of an entry of an N × N matrix while a draw is made: ρ and two halves, the three of the
# draw, the rotation, and a product on its way.
DRAWING_BYTES = 32

# Of one matrix or several (n, n) float32 without NaN, all changed alike, and a seed: as many.
Control = Callable[[tuple[Tensor, ...], int], tuple[Tensor, ...]]


def shuffle(matrices: tuple[Tensor, ...], seed: int) -> tuple[Tensor, ...]:
    """Exchange the entries off the diagonal, those of every matrix in the same way.

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
    """Turn the axes at random, those of every matrix in the same way; the diagonal is 1 again.

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
        # Rounding leaves the two sides apart.
        turned = (turned + turned.T) / 2
        turned.fill_diagonal_(1)
        found.append(turned)
    return tuple(found)


def random_rotation(n: int, seed: int) -> Tensor:
    """An orthogonal matrix, (n, n) float32, uniform in Haar's measure."""
    normal = torch.randn(n, n, generator=torch.Generator().manual_seed(seed))
    q, r = torch.linalg.qr(normal)
    return q * torch.where(r.diagonal() < 0, -1.0, 1.0)


CONTROLS: dict[str, Control] = {"shuffled": shuffle, "same_spectrum": rotate}
