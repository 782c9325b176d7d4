"""The distance between two states, relative to their norms."""

from __future__ import annotations

import torch
from torch import Tensor

_TINY = 1e-30


def mean_distances(a: Tensor, b: Tensor) -> Tensor:
    """The mean over tokens of ‖a − b‖ / ((‖a‖ + ‖b‖) / 2); 0 if all are equal, at most 2.

    It is relative to the norms, so that layers with growing states can be compared, and tokens with
    an outlying norm don't dominate.

    Args:
        a: (…, T, H), T ≥ 1.
        b: (…, T, H).

    Returns:
        (…) float64.
    """
    a, b = a.double(), b.double()
    size = (torch.linalg.vector_norm(a, dim=-1) + torch.linalg.vector_norm(b, dim=-1)) / 2
    return (torch.linalg.vector_norm(a - b, dim=-1) / size.clamp_min(_TINY)).mean(dim=-1)
