"""Initial positions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from projector.errors import check_choice
from projector.layouts.costs import row_blocks
from projector.layouts.kernels import Target, as_target
from projector.layouts.objective import STARTS

# Up to here all eigenvectors together cost less than the products that find a few of them.
_MOST_FOR_DENSE = 128
# Columns beyond those wanted, and products: real correlations' eigenvalues fall off slowly, and
# positions only start here. More of either saves no pass afterwards.
_OVERSAMPLING = 8
_N_PRODUCTS = 6
_SINGLE_POINT_JITTER = 1e-3


def classical_start(target: Tensor | Target, dim: int, generator: torch.Generator) -> Tensor:
    """Classical scaling: (N, dim) positions with inner products that best fit −½·J·δ²·J.

    Torgerson (1952). Above 128 neurons the leading eigenvectors come from a randomized block power
    iteration (Halko, Martinsson & Tropp 2011, arXiv:0909.4061), which reads the target in blocks,
    six times. Each axis is signed so that its largest coordinate is positive, which makes the
    result unique.

    Args:
        target: (N, N) target distances, or another form of target.
        dim: number of axes; axes beyond N − 1 are zero.
        generator: random generator of the randomized iteration, on the CPU.
    """
    form = as_target(target)
    n, device = form.n, form.device
    n_axes = min(dim, n)
    if n <= _MOST_FOR_DENSE:
        square = form.block(slice(0, n), slice(0, n)).double().square().fill_diagonal_(0)
        values, vectors = torch.linalg.eigh(_centred(_centred(square * -0.5).T))
    else:
        n_columns = min(n, n_axes + _OVERSAMPLING)
        basis = torch.randn(n, n_columns, generator=generator, dtype=torch.float64).to(device)
        for _ in range(_N_PRODUCTS - 1):
            basis, _ = torch.linalg.qr(_gram_product(form, basis))
        values, within = torch.linalg.eigh(basis.T @ _gram_product(form, basis))
        vectors = basis @ within
    values, vectors = values.flip(0)[:n_axes], vectors.flip(1)[:, :n_axes]
    axes = vectors * values.clamp(min=0).sqrt()
    largest = axes.gather(0, axes.abs().argmax(dim=0, keepdim=True))
    axes = axes * torch.where(largest < 0, -1.0, 1.0)
    positions = torch.zeros(n, dim, dtype=torch.float32, device=device)
    positions[:, :n_axes] = axes.float()
    return positions


def _gram_product(target: Target, basis: Tensor) -> Tensor:
    """−½·J·δ²·J times ``basis`` (N, k) float64; products in float32."""
    across = _centred(basis).float().T.contiguous()
    product = torch.empty_like(across)
    for rows in row_blocks(target.n):
        square = target.block(rows, slice(0, target.n)).float().square()
        square[:, rows].diagonal().zero_()
        # Several times quicker than with the few columns on the right.
        torch.mm(across, square.T, out=product[:, rows])
    return _centred(product.T.double()).mul_(-0.5)


def _centred(columns: Tensor) -> Tensor:
    return columns - columns.mean(dim=0, keepdim=True)


def start_positions(
    start: str, target: Tensor | Target, dim: int, generator: torch.Generator
) -> Tensor:
    """Initial positions, (N, dim) float32 on the device of ``target``.

    ``classical``: see :func:`classical_start`. ``uniform``: in a cube of side √N. ``normal``:
    standard deviation √N. ``single-point``: all at the origin, with a jitter of 0.001 that breaks
    the symmetry.

    Raises:
        SettingError: for any other ``start``.
    """
    check_choice("start", start, STARTS)
    form = as_target(target)
    n = form.n
    if n == 0:
        return torch.zeros(0, dim, device=form.device)
    if start == "classical":
        return classical_start(form, dim, generator)
    if start == "uniform":
        positions = (torch.rand(n, dim, generator=generator) - 0.5) * math.sqrt(n)
    elif start == "normal":
        positions = torch.randn(n, dim, generator=generator) * math.sqrt(n)
    else:
        positions = torch.randn(n, dim, generator=generator) * _SINGLE_POINT_JITTER
    return positions.to(form.device)
