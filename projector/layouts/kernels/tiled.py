"""The tiled PyTorch implementation: CPU and CUDA, float32 or float64.

The matrix is read in strips of rows, and only on and to the right of the diagonal, so each pair is
read once. A strip's temporaries stay in the cache.
"""

from __future__ import annotations

import torch
from torch import Tensor

from projector.statistics.correlations import Target
from projector.statistics.precision import full_float32

# Entries of a strip, of each thread: its temporaries, 2 MiB in float32, stay in cache, and calls
# cost little beside their work.
_STRIP_ENTRIES = 1 << 17
# A strip of a product pays from some hundreds of rows on, of any width; the rows of its factor are
# widened at once.
_PRODUCT_ENTRIES, _WIDENED_ROWS = 1 << 22, 1 << 24
_N_BUFFERS = 4
# Added to the square of every distance, so that none is 0: far below the rounding of those whose
# row is not done again, where the positions' extent is 1e-10 or more.
_LEAST_SQUARE = 1e-30
# Sums whose terms are this many times what they should come to are done again. Four digits of
# float32 are left then, with room for the rounding of long sums.
_MOST_CANCELLED = 4.0


def transform_tiled(
    positions: Tensor, target: Target, n_entries: int | None = None
) -> tuple[Tensor, float]:
    """The Guttman transform and raw stress; see
    :func:`projector.layouts.kernels.guttman_transform`.

    Distances are computed from differences of coordinates. Squares and products would lose half of
    the digits of a small distance.

    Args:
        positions: (N, d) float32 or float64.
        target: distances wanted.
        n_entries: largest number of entries per strip; a strip has at least one row.
    """
    with full_float32():
        return _transform(positions, target, n_entries or _strip_entries(target.n, target))


def buffer_bytes(n_neurons: int) -> int:
    """Memory of a pass over stored float32 distances, in addition to the distances."""
    n_entries = max(_strip_entries(n_neurons), n_neurons)
    return 4 * _N_BUFFERS * min(n_entries, n_neurons**2)


def _strip_entries(n: int, target: Target | None = None) -> int:
    n_entries = _STRIP_ENTRIES * torch.get_num_threads()
    if target is not None and not target.has_matrix:
        return max(n_entries, _PRODUCT_ENTRIES)
    # High strips compute much of what symmetry would spare, and would be matrices themselves.
    return min(n_entries, max(_STRIP_ENTRIES, n * n // 4))


def _transform(positions: Tensor, target: Target, n_entries: int) -> tuple[Tensor, float]:
    n, dim = positions.shape
    most_rows = n
    if not target.has_matrix:
        most_rows = max(1, _WIDENED_ROWS // max(target.n_tokens, 1))
    # Differences are taken of the positions as given: centring them would round the small ones.
    points = positions.T.contiguous()
    # Ones below the coordinates: a product with them sums pulls too.
    centred = torch.cat([points - points.mean(dim=1, keepdim=True), points.new_ones(1, n)])
    sums = torch.zeros_like(centred)
    least = positions.new_full((), _LEAST_SQUARE)
    buffers = positions.new_empty(_N_BUFFERS, min(max(n_entries, n), n * n))
    raw = 0.0
    first = 0
    while first < n:
        width = n - first
        height = min(max(1, n_entries // width), width, most_rows)
        rows = slice(first, first + height)
        s, q, w, wanted = buffers[:, : height * width].view(_N_BUFFERS, height, width)
        for k in range(dim):
            torch.sub(points[k, rows, None], points[k, first:], out=w)
            torch.addcmul(s if k else least, w, w, out=s)
        torch.rsqrt(s, out=q)
        q[:, :height].diagonal().zero_()
        distance = s.mul_(q)
        wanted = target.block(rows, slice(first, n), wanted)
        misfit = torch.sub(wanted, distance, out=w).square_()
        own = misfit[:, :height]
        own.diagonal().zero_()
        # The square on the diagonal holds its pairs twice. Row by row, for a sum of all in float32
        # would be off by more than stress may rise.
        of_rows = misfit.sum(dim=1).sub_(own.sum(dim=1), alpha=0.5)
        raw += float(of_rows.sum(dtype=torch.float64))
        if dim == 1:
            # On a line pulls of near neighbours would drown the others in every row.
            force = torch.sub(points[0, rows, None], points[0, first:], out=q).sign_().mul_(wanted)
            sums[0, rows] -= force.sum(dim=1)
            sums[0, first + height :] += force[:, height:].sum(dim=0)
            first += height
            continue
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
    """Recompute the rows of ``moved`` in which one term cancelled the precision of all other terms.

    A row is Σ_j r_ij x_i − Σ_j r_ij x_j with r_ij = δ_ij/d_ij. If two points almost coincide but
    have a large target distance, r is so large that float32 loses the other terms. Such a row is
    summed difference by difference in float64.

    Args:
        moved: (N, d), changed in place.
        pulls: (N,), Σ_j r_ij.
        positions, centred: (N, d), the original positions, and those centred on their mean.
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
