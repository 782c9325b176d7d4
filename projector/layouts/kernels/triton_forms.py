"""The Triton kernels, imported only with CUDA, or when they are interpreted in tests.

Both sum δ_ij/d_ij · (x_i − x_j) difference by difference in float32, so no row needs to be
recomputed. They write partial sums that are added in a fixed order: equal runs give equal bytes.
"""

# In a kernel a tuple grows by adding: Triton knows no other way.
# ruff: noqa: RUF005

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from projector.statistics.correlations import Correlations, Distances, MatrixFree

# Columns of a tile of the stored form; its rows follow from the dimension, so that its sums, one
# per coordinate and one for stress, stay in registers.
_COLUMNS = 128
# Below so many blocks of rows, the columns are split too, or part of the device would idle.
_BLOCKS_WANTED = 2048
# Of the matrix-free form: neurons along a side of a tile, tokens at a time, and tiles along a side
# of a square that is worked on together, so that its rows of activations are met in cache.
_SIDE = 128
_TOKENS = 64
_TOGETHER = 8

# Less than this would be flushed to zero.
_LEAST_SQUARE = tl.constexpr(1e-37)


@triton.jit
def _stored_kernel(
    matrix,  # the first map's, float32
    table,  # (n_blocks, 5) int64: offset from it in numbers, row stride, N, first row, place
    points,  # (DIM, n_all) float32; a map's neurons begin at its place
    sums,  # (n_splits, DIM + 1, n_all) float32
    n_all,
    n_columns_each,
    IS_CORRELATION: tl.constexpr,
    ABSOLUTE: tl.constexpr,
    ALIGNED: tl.constexpr,
    DIM: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Sums of one block of rows of one map over a share of its columns."""
    entry = table + tl.program_id(0) * 5
    offset, stride, n = tl.load(entry), tl.load(entry + 1), tl.load(entry + 2)
    first, place = tl.load(entry + 3), tl.load(entry + 4)
    if ALIGNED:
        # What is loaded from a table is not known to be a multiple of anything.
        offset = tl.multiple_of(offset, 4)
        stride = tl.multiple_of(stride, 4)
        n = tl.multiple_of(n, 4)
        place = tl.multiple_of(place, 4)
    i = first + tl.arange(0, ROWS)
    is_row = i < n
    own = ()
    totals = ()
    for k in tl.static_range(DIM):
        own = own + (tl.load(points + k * n_all + place + i, mask=is_row, other=0.0),)
        totals = totals + (tl.zeros((ROWS, COLUMNS), tl.float32),)
    misfits = tl.zeros((ROWS, COLUMNS), tl.float32)
    begin = tl.program_id(1) * n_columns_each
    for column in range(begin, tl.minimum(begin + n_columns_each, n), COLUMNS):
        j = column + tl.arange(0, COLUMNS)
        is_column = j < n
        # Outside the matrix a distance of 0 is wanted: nothing pulls.
        wanted = tl.load(
            matrix + offset + i[:, None] * stride + j[None, :],
            mask=is_row[:, None] & is_column[None, :],
            other=1.0 if IS_CORRELATION else 0.0,
            eviction_policy="evict_first",
        )
        if IS_CORRELATION:
            wanted = 1.0 - (tl.abs(wanted) if ABSOLUTE else wanted)
        square = tl.zeros((ROWS, COLUMNS), tl.float32)
        others = ()
        for k in tl.static_range(DIM):
            others = others + (tl.load(points + k * n_all + place + j, mask=is_column, other=0.0),)
            apart = own[k][:, None] - others[k][None, :]
            square += apart * apart
        # Of coincident points the difference is 0, whatever its factor: no force.
        inverse = tl.rsqrt(tl.maximum(square, _LEAST_SQUARE))
        is_pair = is_column[None, :] & (i[:, None] != j[None, :])
        misfit = tl.where(is_pair, square * inverse - wanted, 0.0)
        misfits += misfit * misfit
        pull = wanted * inverse
        new = ()
        for k in tl.static_range(DIM):
            new = new + (totals[k] + pull * (own[k][:, None] - others[k][None, :]),)
        totals = new
    into = sums + tl.program_id(1).to(tl.int64) * (DIM + 1) * n_all + place + i
    for k in tl.static_range(DIM):
        tl.store(into + k * n_all, tl.sum(totals[k], axis=1), mask=is_row)
    tl.store(into + DIM * n_all, tl.sum(misfits, axis=1), mask=is_row)


@triton.jit
def _matrix_free_kernel(
    tiles,  # (n_tiles, 2) int32: which block of rows, which of columns; rows ≤ columns
    activations,  # (N, T), any float dtype
    points,  # (DIM, N) float32
    sums,  # (n_blocks, DIM + 1, N) float32
    n,
    n_tokens,
    ABSOLUTE: tl.constexpr,
    PRECISION: tl.constexpr,
    DIM: tl.constexpr,
    SIDE: tl.constexpr,
    TOKENS: tl.constexpr,
):
    """ρ of one tile, and the sums of its rows and, by symmetry, of its columns."""
    row_block = tl.load(tiles + tl.program_id(0) * 2)
    column_block = tl.load(tiles + tl.program_id(0) * 2 + 1)
    i = row_block * SIDE + tl.arange(0, SIDE)
    j = column_block * SIDE + tl.arange(0, SIDE)
    token = tl.arange(0, TOKENS)
    left = activations + i.to(tl.int64)[:, None] * n_tokens + token[None, :]
    right = activations + j.to(tl.int64)[:, None] * n_tokens + token[None, :]
    products = tl.zeros((SIDE, SIDE), tl.float32)
    for first in range(0, n_tokens, TOKENS):
        is_token = (first + token < n_tokens)[None, :]
        a = tl.load(left + first, mask=(i < n)[:, None] & is_token, other=0.0)
        b = tl.load(right + first, mask=(j < n)[:, None] & is_token, other=0.0)
        products = tl.dot(a, tl.trans(b), products, input_precision=PRECISION)
    rho = tl.minimum(tl.maximum(products / n_tokens, -1.0), 1.0)
    wanted = 1.0 - (tl.abs(rho) if ABSOLUTE else rho)
    is_pair = (i < n)[:, None] & (j < n)[None, :] & (i[:, None] != j[None, :])
    square = tl.zeros((SIDE, SIDE), tl.float32)
    for k in tl.static_range(DIM):
        own = tl.load(points + k * n + i, mask=i < n, other=0.0)
        other = tl.load(points + k * n + j, mask=j < n, other=0.0)
        apart = own[:, None] - other[None, :]
        square += apart * apart
    inverse = tl.rsqrt(tl.maximum(square, _LEAST_SQUARE))
    misfit = tl.where(is_pair, square * inverse - wanted, 0.0)
    misfit *= misfit
    pull = tl.where(is_pair, wanted * inverse, 0.0)
    # Each block of each neuron's sums is written once.
    of_rows = sums + column_block.to(tl.int64) * (DIM + 1) * n + i
    of_columns = sums + row_block.to(tl.int64) * (DIM + 1) * n + j
    # On the diagonal, rows are columns.
    is_column = (j < n) & (j >= (row_block + 1) * SIDE)
    for k in tl.static_range(DIM):
        own = tl.load(points + k * n + i, mask=i < n, other=0.0)
        other = tl.load(points + k * n + j, mask=j < n, other=0.0)
        force = pull * (own[:, None] - other[None, :])
        tl.store(of_rows + k * n, tl.sum(force, axis=1), mask=i < n)
        tl.store(of_columns + k * n, -tl.sum(force, axis=0), mask=is_column)
    tl.store(of_rows + DIM * n, tl.sum(misfit, axis=1), mask=i < n)
    tl.store(of_columns + DIM * n, tl.sum(misfit, axis=0), mask=is_column)


@dataclass(frozen=True)
class _Plan:
    """Where each block of a launch works, and how its sums come apart again."""

    table: Tensor
    n_splits: int
    n_columns_each: int
    # (n_all,) N of each neuron's map; (n_maps, most N) places of a map's neurons, filled up with
    # n_all, where a zero stands.
    sizes: Tensor
    members: Tensor


@lru_cache(maxsize=16)
def _plan(matrices: tuple[tuple[int, int, int], ...], n_rows: int, device: torch.device) -> _Plan:
    """For matrices (address, row stride, N), and blocks of ``n_rows`` rows."""
    entries, places, n_all = [], [], 0
    for address, stride, n in matrices:
        offset = (address - matrices[0][0]) // 4
        entries += [(offset, stride, n, first, n_all) for first in range(0, n, n_rows)]
        places.append(n_all)
        n_all += n
    most = max(n for *_, n in matrices)
    n_splits = min(max(1, _BLOCKS_WANTED // len(entries)), triton.cdiv(most, _COLUMNS))
    each = triton.cdiv(triton.cdiv(most, n_splits), _COLUMNS) * _COLUMNS
    members = torch.full((len(matrices), most), n_all)
    for index, (place, (*_, n)) in enumerate(zip(places, matrices, strict=True)):
        members[index, :n] = torch.arange(place, place + n)
    sizes = torch.tensor([n for *_, n in matrices]).repeat_interleave(
        torch.tensor([n for *_, n in matrices])
    )
    return _Plan(
        torch.tensor(entries).to(device),
        triton.cdiv(most, each),
        each,
        sizes.float().to(device),
        members.to(device),
    )


def transform_stored(
    positions: Sequence[Tensor], targets: Sequence[Distances | Correlations]
) -> list[tuple[Tensor, float]]:
    """The Guttman transform and raw stress of several maps, with one kernel launch and one
    synchronisation.

    Args:
        positions: (N, d) float32 each, with any N, and the same d ≤ 8 for all.
        targets: stored as float32 matrices with contiguous rows; all in the same form.
    """
    dim = positions[0].shape[1]
    device = positions[0].device
    shapes = tuple(
        (matrix.data_ptr(), matrix.stride(0), len(matrix))
        for matrix in (target.stored for target in targets)
        if matrix is not None
    )
    n_rows = 8 if dim <= 3 else 4
    plan = _plan(shapes, n_rows, device)
    points = torch.cat([x.T for x in positions], dim=1).contiguous()
    n_all = points.shape[1]
    sums = points.new_empty(plan.n_splits, dim + 1, n_all)
    is_aligned = all(
        address % 16 == 0 and stride % 4 == 0 and n % 4 == 0 for address, stride, n in shapes
    )
    form = targets[0]
    # Triton launches on the current device.
    with torch.cuda.device_of(points):
        _stored_kernel[(len(plan.table), plan.n_splits)](
            form.stored,
            plan.table,
            points,
            sums,
            n_all,
            plan.n_columns_each,
            IS_CORRELATION=form.is_correlation,
            ABSOLUTE=form.absolute,
            ALIGNED=is_aligned,
            DIM=dim,
            ROWS=n_rows,
            COLUMNS=_COLUMNS,
            num_warps=4,
        )
    whole = sums.sum(dim=0)
    moved = (whole[:dim] / plan.sizes).T.contiguous()
    misfits = torch.cat([whole[dim], whole.new_zeros(1)])[plan.members]
    # Each pair stands in two rows.
    raws = (misfits.sum(dim=1, dtype=torch.float64) / 2).tolist()
    pieces = moved.split([target.n for target in targets])
    return list(zip(pieces, raws, strict=True))


@lru_cache(maxsize=16)
def _upper_tiles(n_blocks: int, device: torch.device) -> Tensor:
    """(n_tiles, 2) int32, the tiles on and above the diagonal, in squares of neighbours."""
    rows, columns = torch.triu_indices(n_blocks, n_blocks)
    order = sorted(
        zip(rows.tolist(), columns.tolist(), strict=True),
        key=lambda tile: (tile[0] // _TOGETHER, tile[1] // _TOGETHER, *tile),
    )
    return torch.tensor(order, dtype=torch.int32).to(device)


def transform_matrix_free(positions: Tensor, target: MatrixFree) -> tuple[Tensor, float]:
    """The Guttman transform and raw stress, with correlations computed tile by tile.

    Only tiles on and above the diagonal are computed: N²·T operations.

    Args:
        positions: (N, d) float32, d at most 8.
        target: a sample with contiguous rows. Float16 and bfloat16 use the matrix units; float32 is
            multiplied in float32, which is far slower.
    """
    n, dim = positions.shape
    is_half = target.rows.dtype in (torch.float16, torch.bfloat16)
    # Float32 takes twice the room of each.
    side, n_tokens = (_SIDE, _TOKENS) if is_half else (_SIDE // 2, _TOKENS // 2)
    n_blocks = triton.cdiv(n, side)
    tiles = _upper_tiles(n_blocks, positions.device)
    points = positions.T.contiguous()
    sums = points.new_empty(n_blocks, dim + 1, n)
    rows = target.rows.contiguous()
    with torch.cuda.device_of(points):
        _matrix_free_kernel[(len(tiles),)](
            tiles,
            rows,
            points,
            sums,
            n,
            target.n_tokens,
            ABSOLUTE=target.absolute,
            PRECISION="tf32" if is_half else "ieee",
            DIM=dim,
            SIDE=side,
            TOKENS=n_tokens,
            num_warps=8,
            num_stages=3,
        )
    whole = sums.sum(dim=0)
    raw = float(whole[dim].sum(dtype=torch.float64)) / 2
    return (whole[:dim] / n).T.contiguous(), raw
