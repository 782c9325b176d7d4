"""Correlations of the two halves of a corpus, kept in the two triangles of one matrix."""

from __future__ import annotations

import torch
from torch import Tensor

# The tensor's name, behind that of the map.
HALVES = "halves"
# Bytes of each pair of neurons, i with j and j with i.
BYTES = 2


def packed_halves(first: Tensor, second: Tensor) -> Tensor:
    """Two correlation matrices in the room of one: float16, off by at most 2.5e-4.

    One half alone, from which the other could be derived by the whole's covariance, would take
    half of that; but where a neuron is loud in the half that is kept and quiet in the other, its
    rounding would be multiplied by the ratio of the variances.

    Args:
        first, second: (N, N), of the first and the second half; NaN for undefined neurons. They
            stay as they are.

    Returns:
        (N, N) float16: the first above the diagonal, the second below it; on the diagonal 1 where
        a neuron is defined in the first half, plus 2 where it is in the second.
    """
    packed = torch.where(
        torch.ones_like(first, dtype=torch.bool).triu(), first.half(), second.half()
    )
    defined = [half.diagonal().isfinite() for half in (first, second)]
    packed.diagonal().copy_(defined[0].half() + 2 * defined[1].half())
    return packed


def unpacked_halves(packed: Tensor) -> tuple[Tensor, Tensor]:
    """What :func:`packed_halves` was given, (N, N) float32 each."""
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
