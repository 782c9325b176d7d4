"""Principal components: the linear map that keeps most of the variance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from projector.progress import Progress
from projector.residual.particles.reduction.reduction import Fitted, Reduction

if TYPE_CHECKING:
    from torch import Tensor


def fit_pca(
    rows: Tensor,
    *,
    dim: int,
    neighbours: int = 15,
    seed: int = 0,
    is_centred: bool = True,
    progress: Progress | None = None,
) -> Fitted:
    """Positions Vᵀ(x − m), V (W, dim) the leading right singular vectors of the rows less m.

    Pearson (1901). In float64. m is the rows' mean, or 0: then the map of a sum is the sum of the
    maps. Each axis is signed so that its largest entry is positive, which makes the map unique
    where singular values differ. Where rows have fewer than ``dim`` dimensions, the axes beyond
    theirs are 0.

    Args:
        rows: (n, W).
        dim: number of axes.
        neighbours: not used.
        seed: not used.
        is_centred: whether m is the mean.
        progress: not used: it takes seconds at most.
    """
    whole = rows.double()
    middle = whole.mean(dim=0) if is_centred else whole.new_zeros(whole.shape[1])
    axes, explained = _axes(whole - middle, dim)

    def place(others: Tensor) -> Tensor:
        return ((others.double() - middle) @ axes).float()

    return Fitted(place(rows), place, explained)


def _axes(rows: Tensor, dim: int) -> tuple[Tensor, float | None]:
    """The leading axes (W, dim) of rows (n, W) float64, and the share of Σ‖x‖² that they keep."""
    import torch

    n, width = rows.shape
    total = float(rows.square().sum())
    if n < width:
        found = torch.linalg.svd(rows, full_matrices=False)
        squares, vectors = found.S.square(), found.Vh.T
    else:
        # As good here as the singular values themselves: float64 has digits to spare for a square.
        squares, vectors = torch.linalg.eigh(rows.T @ rows)
        squares, vectors = squares.flip(0), vectors.flip(1)
    vectors = vectors[:, :dim]
    largest = vectors.gather(0, vectors.abs().argmax(dim=0, keepdim=True))
    vectors = vectors * torch.where(largest < 0, -1.0, 1.0)
    axes = rows.new_zeros(width, dim)
    axes[:, : vectors.shape[1]] = vectors
    kept = float(squares[:dim].clamp(min=0).sum())
    return axes, min(1.0, kept / total) if total else None


PCA = Reduction(
    name="pca",
    words="PCA",
    help="a linear map onto the directions along which states differ most",
    is_linear=True,
    metric="euclidean",
    places_others=True,
    least_rows=lambda dim, neighbours: dim + 1,
    fit=fit_pca,
)
