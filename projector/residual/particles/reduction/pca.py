"""Principal component analysis: the linear map that keeps most of the variance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from projector.progress import Progress
from projector.residual.particles.reduction.reduction import Fitted, Reduction

if TYPE_CHECKING:
    from torch import Tensor

# Rows that are in memory in float64 at a time.
_ROWS_AT_ONCE = 8_192


def fit_pca(
    rows: Tensor,
    *,
    dim: int,
    neighbours: int = 15,
    seed: int = 0,
    is_centred: bool = True,
    progress: Progress | None = None,
) -> Fitted:
    """Fit positions Vᵀ(x − m), with V (W, dim) the leading right singular vectors of the rows minus
    m.

    Source: Pearson (1901). Computation is in float64. m is the rows' mean, or 0, in which case the
    map of a sum is the sum of the maps. Each axis has the sign that makes its largest entry
    positive, so the map is unique if singular values differ. If the rows span fewer than ``dim``
    dimensions, the remaining coordinates are 0.

    Args:
        rows: (n, W).
        dim: number of axes.
        neighbours: not used.
        seed: not used.
        is_centred: whether m is the mean.
        progress: not used, because it takes seconds at most.
    """
    import torch

    middle = torch.zeros(rows.shape[1], dtype=torch.float64)
    if is_centred:
        middle = rows.mean(dim=0, dtype=torch.float64)
    axes, explained = _axes(rows, middle, dim)

    def place(others: Tensor) -> Tensor:
        parts = [(part.double() - middle) @ axes for part in others.split(_ROWS_AT_ONCE)]
        return torch.cat(parts).float()

    return Fitted(place(rows), place, explained)


def _axes(rows: Tensor, middle: Tensor, dim: int) -> tuple[Tensor, float | None]:
    """The leading axes (W, dim) of x − m, and the share of Σ‖x − m‖² that they keep; float64.

    Args:
        rows: x, (n, W).
        middle: m, (W,) float64.
    """
    import torch

    n, width = rows.shape
    if n < width:
        found = torch.linalg.svd(rows.double() - middle, full_matrices=False)
        squares, vectors = found.S.square(), found.Vh.T
    else:
        # As good here as the singular values themselves: float64 has digits to spare for a square.
        products = torch.zeros(width, width, dtype=torch.float64)
        for part in rows.split(_ROWS_AT_ONCE):
            centred = part.double() - middle
            products.addmm_(centred.T, centred)
        squares, vectors = torch.linalg.eigh(products)
        squares, vectors = squares.flip(0), vectors.flip(1)
    total = float(squares.clamp(min=0).sum())
    vectors = vectors[:, :dim]
    largest = vectors.gather(0, vectors.abs().argmax(dim=0, keepdim=True))
    vectors = vectors * torch.where(largest < 0, -1.0, 1.0)
    axes = torch.zeros(width, dim, dtype=torch.float64)
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
