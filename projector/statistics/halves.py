"""Correlations of the two halves of a corpus, stored in the two triangles of one matrix."""

from __future__ import annotations

import torch
from torch import Tensor

# The tensor's name, behind that of the map.
HALVES = "halves"
# Bytes of each pair of neurons, i with j and j with i.
BYTES = 2


def packed_halves(first: Tensor, second: Tensor) -> Tensor:
    """Pack two correlation matrices into one, in float16, with an error of at most 2.5e-4.

    Storing only one half and computing the other from the covariance of the whole corpus would need
    half the space. But if a neuron has a large variance in the stored half and a small one in the
    other, its rounding error would be multiplied by the ratio of the variances.

    Args:
        first, second: (N, N), correlations of the first and the second half; NaN for undefined
            neurons. They are not modified.

    Returns:
        (N, N) float16: the first above the diagonal, the second below it; on the diagonal, 1 if a
        neuron is defined in the first half, plus 2 if it is defined in the second.
    """
    packed = torch.where(
        torch.ones_like(first, dtype=torch.bool).triu(), first.half(), second.half()
    )
    defined = [half.diagonal().isfinite() for half in (first, second)]
    packed.diagonal().copy_(defined[0].half() + 2 * defined[1].half())
    return packed


def unpacked_halves(packed: Tensor) -> tuple[Tensor, Tensor]:
    """Unpack the result of :func:`packed_halves` to two matrices, (N, N) float32 each."""
    code = packed.diagonal().long()
    found = []
    for bit, triangle in ((1, packed.triu(1)), (2, packed.tril(-1))):
        half = triangle.float()
        half = half + half.T
        half.fill_diagonal_(1.0)
        is_undefined = code & bit == 0
        half[is_undefined] = torch.nan
        half[:, is_undefined] = torch.nan
        found.append(half)
    return found[0], found[1]
