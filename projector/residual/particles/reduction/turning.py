"""Frames that have a map each, turned onto one another."""

from __future__ import annotations

import torch
from torch import Tensor


def turn_onto(positions: Tensor, before: Tensor, counted: Tensor, *, is_centred: bool) -> Tensor:
    """A frame's positions, rotated or mirrored so that they lie nearest to the frame before.

    The orthogonal Procrustes problem (Schönemann 1966): R = U·Vᵀ of AᵀB = U·S·Vᵀ. Nothing is
    scaled, so that distances within the frame stay as they are.

    Args:
        positions: A, (P, dim).
        before: B, (P, dim).
        counted: (P,) bool, the particles that decide; both positions of each are finite.
        is_centred: whether means are laid on each other too; else the origin stays where it is.

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
