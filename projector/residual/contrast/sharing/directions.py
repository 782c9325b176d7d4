"""The top directions of a set of vectors, and the angles between two subspaces."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["angles_between", "mean_overlap", "top_directions"]

# Fewer coordinates than this are decomposed whole, which takes no longer.
_WHOLE = 64
# A singular value below this part of the largest one is rounding.
_LEAST = 1e-6


def top_directions(vectors: Tensor, k: int) -> Tensor:
    """Find the k directions with the largest sums of squares: right singular vectors of
    ``vectors``.

    It uses Lanczos iteration, so a wide matrix is never fully decomposed.

    Args:
        vectors: (m, H), floating point.

    Returns:
        (H, j) float64 on the CPU, orthonormal, the strongest first; j < k if the vectors span fewer
        dimensions, and j = 0 if all are zero.
    """
    rows = vectors.detach().cpu()
    rows = rows if rows.dtype in (torch.float32, torch.float64) else rows.float()
    k = min(k, *rows.shape)
    size = float(rows.abs().max()) if rows.numel() else 0.0
    if not size or k < 1:
        return torch.zeros(rows.shape[1], 0, dtype=torch.float64)
    # So that squares neither overflow nor vanish.
    rows = rows / size
    values, found = _largest(rows, k) if min(rows.shape) > _WHOLE else _whole(rows, k)
    kept = values.clamp_min(0).sqrt() > _LEAST * float(values.max()) ** 0.5
    return found[:, kept]


def mean_overlap(first: Tensor, second: Tensor) -> Tensor:
    """Mean squared cosine of the principal angles between subspaces, (…, H, k) orthonormal each."""
    return (first.transpose(-1, -2) @ second).square().sum(dim=(-1, -2)) / first.shape[-1]


def angles_between(first: Tensor, second: Tensor) -> Tensor:
    """Principal angles between subspaces, (…, H, k) orthonormal each: (…, k) degrees, smallest
    first.

    Source: Björck and Golub 1973, "Numerical methods for computing angles between linear
    subspaces".
    """
    cosines = torch.linalg.svdvals(first.transpose(-1, -2) @ second)
    return torch.rad2deg(torch.arccos(cosines.clamp(0, 1)))


def _whole(rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    _, singular, right = torch.linalg.svd(rows.double(), full_matrices=False)
    return singular[:k].square(), right[:k].T


def _largest(rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest eigenvalues of rowsᵀ rows, and their vectors, largest first."""
    # SciPy's solvers take a while to import, and few commands need them.
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

    # numpy and not torch: a product this small is over before torch has looked up its types.
    matrix = rows.numpy()
    width = matrix.shape[1]

    def multiply(vector: np.ndarray) -> np.ndarray:
        given = matrix.T @ (matrix @ vector.astype(matrix.dtype))
        return np.asarray(given, dtype=np.float64)

    start = np.random.default_rng(0).standard_normal(width)
    operator = LinearOperator((width, width), matvec=multiply, dtype=np.float64)
    try:
        values, found = eigsh(operator, k=k, which="LA", v0=start, tol=1e-6, ncv=4 * k + 10)
    except ArpackNoConvergence:
        return _whole(rows, k)
    order = np.argsort(values)[::-1].copy()
    return torch.from_numpy(values[order]), torch.from_numpy(found[:, order])
