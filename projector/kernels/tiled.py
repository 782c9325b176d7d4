"""The tiled torch form: any device, float32 or float64.

The matrix is walked in strips of rows, of which only what lies on and right of the diagonal is
read: each pair once. A strip's temporaries stay in cache.
"""

from __future__ import annotations

import torch
from torch import Tensor

from projector.kernels.targets import MatrixFree, Target

# Entries of a strip, of each thread: its temporaries, 2 MiB in float32, stay in cache, and calls
# cost little beside their work.
_STRIP_ENTRIES = 1 << 17
# A strip of a product pays from some hundreds of rows on, of any width.
_PRODUCT_ENTRIES = 1 << 22
# Added to the square of every distance, so that none is 0: far below the rounding of those whose
# row is not done again.
_LEAST_SQUARE = 1e-30
# Sums whose terms are this many times what they should come to are done again. Four digits of
# float32 are left then, with room for the rounding of long sums.
_MOST_CANCELLED = 4.0


def transform_tiled(
    positions: Tensor, target: Target, n_entries: int | None = None
) -> tuple[Tensor, float]:
    """The Guttman transform and raw stress, as :func:`projector.kernels.guttman_transform`.

    Distances come from differences of coordinates: from squares and products, half the digits of a
    small one would be lost.

    Args:
        positions: (N, d) float32 or float64.
        target: distances wanted.
        n_entries: most entries of a strip, at least one row of it.
    """
    n, dim = positions.shape
    if n_entries is None:
        n_entries = _STRIP_ENTRIES * torch.get_num_threads()
        if isinstance(target, MatrixFree):
            n_entries = max(n_entries, _PRODUCT_ENTRIES)
    # Differences are taken of the positions as given: centring them would round the small ones.
    points = positions.T.contiguous()
    # Ones below the coordinates: a product with them sums pulls too.
    centred = torch.cat([points - points.mean(dim=1, keepdim=True), points.new_ones(1, n)])
    sums = torch.zeros_like(centred)
    least = positions.new_full((), _LEAST_SQUARE)
    buffers = positions.new_empty(4, min(max(n_entries, n), n * n))
    raw = 0.0
    first = 0
    while first < n:
        width = n - first
        height = min(max(1, n_entries // width), width)
        rows = slice(first, first + height)
        s, q, w, wanted = buffers[:, : height * width].view(4, height, width)
        for k in range(dim):
            torch.sub(points[k, rows, None], points[k, first:], out=w)
            torch.addcmul(s if k else least, w, w, out=s)
        torch.rsqrt(s, out=q)
        q[:, :height].diagonal().zero_()
        distance = s.mul_(q)
        wanted = target.block(rows, slice(first, n), wanted)
        own = torch.sub(wanted, distance, out=w)[:, :height]
        own.diagonal().zero_()
        flat = w.view(-1)
        # The square on the diagonal holds its pairs twice.
        raw += float(torch.dot(flat, flat)) - float(own.square().sum()) / 2
        pull = torch.mul(wanted, q, out=w)
        sums[:, rows].addmm_(centred[:, first:], pull.T)
        if width > height:
            sums[:, first + height :].addmm_(centred[:, rows], pull[:, height:])
        first += height
    moved = (sums[dim] * centred[:dim] - sums[:dim]).div_(n).T.contiguous()
    redo_cancelled(moved, sums[dim], positions, centred[:dim].T, target)
    return moved, raw


def redo_cancelled(
    moved: Tensor, pulls: Tensor, positions: Tensor, centred: Tensor, target: Target
) -> None:
    """Write those rows of ``moved`` anew in which one pull drowned the others.

    A row is Σ_j r_ij x_i − Σ_j r_ij x_j, r_ij = δ_ij/d_ij. Where two points all but coincide and
    should not, r is so large that float32 loses the other terms, and the row is summed difference
    by difference in float64.

    Args:
        moved: (N, d), changed in place.
        pulls: (N,) Σ_j r_ij.
        positions, centred: (N, d) as given, and centred on their mean.
    """
    n = len(pulls)
    terms = pulls.abs() * centred.abs().amax(dim=1)
    is_cancelled = ~(terms <= _MOST_CANCELLED * n * target.scale)
    for row in is_cancelled.nonzero()[:, 0].tolist():
        difference = positions[row].double() - positions.double()
        distance = torch.linalg.vector_norm(difference, dim=1)
        wanted = target.block(slice(row, row + 1), slice(0, n))[0].double()
        pull = torch.where(distance > 0, wanted / distance, 0.0)
        moved[row] = (pull[:, None] * difference).sum(dim=0).div_(n).to(moved)
