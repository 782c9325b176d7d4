"""The highest logits of a row, with one rule for ties."""

from __future__ import annotations

import torch
from torch import Tensor

_BLOCK = 64


def find_highest(logits: Tensor, n_top: int) -> tuple[Tensor, Tensor]:
    """Find the ``n_top`` highest values of each row (c, V), the highest first, and their indices.

    For ties, which are common in half precision, the lowest id comes first.

    If a row is reshaped to a table, the highest values are within the ``n_top`` columns with the
    highest maxima. Computing maxima is one fast pass, while a search over the whole row takes
    several slow passes.
    """
    n_rows, width = logits.shape
    n_columns = width // _BLOCK
    if n_columns < 2 * n_top:
        values, ids = logits.topk(n_top, dim=-1)
        n_equal = (logits >= values[:, -1:]).sum(dim=-1)
        return _in_order(logits, values, ids, n_equal > n_top)
    n_whole = n_columns * _BLOCK
    maxima = logits[:, :n_whole].reshape(n_rows, _BLOCK, n_columns).amax(dim=1)
    columns = maxima.topk(n_top, dim=-1).indices
    step = torch.arange(_BLOCK, device=logits.device) * n_columns
    candidates = (step[None, :, None] + columns[:, None]).reshape(n_rows, -1)
    rest = torch.arange(n_whole, width, device=logits.device).expand(n_rows, -1)
    candidates = torch.cat([candidates, rest], dim=1)
    given = logits.gather(1, candidates)
    values, found = given.topk(n_top, dim=-1)
    # Whether a token that was not chosen may be as high as the last one that was.
    least = values[:, -1:]
    is_open = (maxima >= least).sum(dim=-1) > n_top
    is_open |= (given >= least).sum(dim=-1) > n_top
    return _in_order(logits, values, candidates.gather(1, found), is_open)


def highest(logits: Tensor) -> int:
    """The id of the highest of (V,) logits; for ties, the lowest id."""
    return int(find_highest(logits[None], 1)[1])


def _in_order(
    logits: Tensor, values: Tensor, ids: Tensor, is_open: Tensor
) -> tuple[Tensor, Tensor]:
    """The same with the lowest ids first among equal values.

    Args:
        is_open: (c,) bool, rows in which some other token is as high as the last of ``values``.
    """
    n_top = values.shape[1]
    for row in is_open.nonzero()[:, 0].tolist():
        # In the order of their ids, which sorting keeps.
        high = (logits[row] >= values[row, -1]).nonzero()[:, 0]
        order = logits[row, high].argsort(descending=True, stable=True)[:n_top]
        ids[row], values[row] = high[order], logits[row, high[order]]
    ids, by_id = ids.sort(dim=-1)
    values, order = values.gather(1, by_id).sort(dim=-1, descending=True, stable=True)
    return values, ids.gather(1, order)
