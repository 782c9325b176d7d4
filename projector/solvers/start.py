"""Where positions start from."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from projector.errors import UserError

STARTS = ("classical", "single-point", "uniform", "normal")

# Up to here all eigenvectors together cost less than the passes that find a few of them.
_MOST_FOR_DENSE = 1024
_SINGLE_POINT_JITTER = 1e-3


def classical_start(target: Tensor, dim: int, generator: torch.Generator) -> Tensor:
    """Classical scaling: (N, dim) positions whose inner products fit −½·J·δ²·J best.

    Torgerson (1952). Above 1,024 neurons the leading eigenvectors come from a randomized block
    Krylov iteration (Halko, Martinsson & Tropp 2011, arXiv:0909.4061), which costs twelve products
    with the matrix. Each axis is signed so that its largest coordinate is positive, which makes the
    result unique.

    Args:
        target: (N, N) distances wanted.
        dim: number of axes; those beyond N − 1 are zero.
        generator: source of the randomized iteration, on the CPU.
    """
    n = target.shape[0]
    gram = target.double().square().mul_(-0.5)
    gram -= gram.mean(dim=0, keepdim=True)
    gram -= gram.mean(dim=1, keepdim=True)
    n_axes = min(dim, n)
    if n <= _MOST_FOR_DENSE:
        values, vectors = torch.linalg.eigh(gram)
    else:
        basis = torch.randn(n, n_axes + 16, generator=generator, dtype=torch.float64).to(gram)
        for _ in range(12):
            basis, _ = torch.linalg.qr(gram @ basis)
        values, within = torch.linalg.eigh(basis.T @ (gram @ basis))
        vectors = basis @ within
    values, vectors = values.flip(0)[:n_axes], vectors.flip(1)[:, :n_axes]
    axes = vectors * values.clamp(min=0).sqrt()
    largest = axes.gather(0, axes.abs().argmax(dim=0, keepdim=True))
    axes = axes * torch.where(largest < 0, -1.0, 1.0)
    positions = torch.zeros(n, dim, dtype=torch.float32, device=target.device)
    positions[:, :n_axes] = axes.float()
    return positions


def start_positions(start: str, target: Tensor, dim: int, generator: torch.Generator) -> Tensor:
    """Starting positions, (N, dim) float32 on the device of ``target``.

    ``classical``: see :func:`classical_start`. ``uniform``: in a cube of side √N. ``normal``:
    standard deviation √N. ``single-point``: all at the origin but for a jitter of 0.001, without
    which no direction would be better than another.

    Raises:
        UserError: if ``start`` is none of these.
    """
    n = target.shape[0]
    if start == "classical":
        return classical_start(target, dim, generator)
    if start == "uniform":
        positions = (torch.rand(n, dim, generator=generator) - 0.5) * math.sqrt(n)
    elif start == "normal":
        positions = torch.randn(n, dim, generator=generator) * math.sqrt(n)
    elif start == "single-point":
        positions = torch.randn(n, dim, generator=generator) * _SINGLE_POINT_JITTER
    else:
        raise UserError(f"unknown start '{start}': choose from {', '.join(STARTS)}")
    return positions.to(target.device)
