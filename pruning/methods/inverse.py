"""Invert a symmetric matrix, in little more memory than the matrix takes.

The Cholesky factor is inverted and multiplied with itself recursively in halves, so that all but
small blocks are matrix products, which are several times as fast as LAPACK's steps.
"""

from __future__ import annotations

import torch
from torch import Tensor

# A block this small isn't divided further.
_SMALL = 256


def inverse_of(moments: Tensor) -> Tensor:
    """M⁻¹ of M (N, N), symmetric and regular, in M's dtype.

    Costs a little more than N³ / 2 multiplications and additions. Holds the result, and at most
    half a matrix more.

    Raises:
        RuntimeError: if M is singular.
    """
    factor, info = torch.linalg.cholesky_ex(moments)
    if int(info):
        # Rounding made it indefinite.
        return torch.linalg.inv(moments).contiguous()
    # LAPACK leaves it by columns.
    _invert(factor)
    _multiply_with_itself(factor)
    for start in range(0, len(factor), _SMALL):
        stop = start + _SMALL
        square = factor[start:stop, start:stop]
        square.copy_(square.tril() + square.tril(-1).T)
        factor[start:stop, stop:] = factor[stop:, start:stop].T
    return factor if factor.is_contiguous() else factor.T


def _invert(lower: Tensor) -> None:
    """L ← L⁻¹, in place; above the diagonal there are zeros."""
    if len(lower) <= _SMALL:
        eye = torch.eye(len(lower), dtype=lower.dtype, device=lower.device)
        lower.copy_(torch.linalg.solve_triangular(lower, eye, upper=False))
        return
    first, between, second = _parts(lower)
    _invert(first)
    _invert(second)
    between.copy_(_transposed_times(first, _times(second, between).T).T.neg_())


def _multiply_with_itself(lower: Tensor) -> None:
    """L ← LᵀL, in place, at and below the diagonal; what is above it is of no account."""
    if len(lower) <= _SMALL:
        lower.copy_(lower.T @ lower)
        return
    first, between, second = _parts(lower)
    _multiply_with_itself(first)
    for start in range(0, len(first), _SMALL):
        stop = start + _SMALL
        first[start:stop, :stop].addmm_(between[:, start:stop].T, between[:, :stop])
    between.copy_(_transposed_times(second, between))
    _multiply_with_itself(second)


def _times(lower: Tensor, matrix: Tensor) -> Tensor:
    """L A, of L (n, n) and A (n, k): half the operations of the whole product."""
    if len(lower) <= _SMALL:
        return lower @ matrix
    half = len(lower) // 2
    first, between, second = _parts(lower)
    below = _times(second, matrix[half:]).addmm_(between, matrix[:half])
    return torch.cat([_times(first, matrix[:half]), below])


def _transposed_times(lower: Tensor, matrix: Tensor) -> Tensor:
    """LᵀA, the same way."""
    if len(lower) <= _SMALL:
        return lower.T @ matrix
    half = len(lower) // 2
    first, between, second = _parts(lower)
    above = _transposed_times(first, matrix[:half]).addmm_(between.T, matrix[half:])
    return torch.cat([above, _transposed_times(second, matrix[half:])])


def _parts(lower: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The two halves on the diagonal of a lower triangle, and what is between them."""
    half = len(lower) // 2
    return lower[:half, :half], lower[half:, :half], lower[half:, half:]
