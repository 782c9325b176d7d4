"""Rotate frames with separate maps onto one another."""

from __future__ import annotations

import torch
from torch import Tensor


def turn_onto(positions: Tensor, before: Tensor, counted: Tensor, *, is_centred: bool) -> Tensor:
    """Rotate or mirror a frame's positions to be closest to the previous frame.

    The orthogonal Procrustes problem (Schönemann 1966): R = U·Vᵀ of AᵀB = U·S·Vᵀ. There is no
    scaling, so distances within the frame are unchanged.

    Args:
        positions: A, (P, dim).
        before: B, (P, dim).
        counted: (P,) bool, the particles to fit the rotation on, with finite positions in both
            frames.
        is_centred: whether means are aligned too; otherwise the origin is fixed.

    Returns:
        (P, dim) float32.
    """
    a, b = positions.double(), before.double()
    if not bool(counted.any()):
        return positions
    middle, aim = a.new_zeros(a.shape[1]), b.new_zeros(b.shape[1])
    if is_centred:
        middle, aim = a[counted].mean(dim=0), b[counted].mean(dim=0)
    u, _, vt = torch.linalg.svd((a[counted] - middle).T @ (b[counted] - aim))
    return ((a - middle) @ (u @ vt) + aim).float()
