"""How far two states are apart, relative to how long they are."""

from __future__ import annotations

import torch
from torch import Tensor

_TINY = 1e-30


def mean_distances(a: Tensor, b: Tensor) -> Tensor:
    """The mean over tokens of ‖a − b‖ / ((‖a‖ + ‖b‖) / 2); 0 if all are equal, 2 at most.

    Relative to the norms, so that layers can be compared whose states grow, and no token with an
    outlying norm outweighs the others.

    Args:
        a: (…, T, H), T ≥ 1.
        b: (…, T, H).

    Returns:
        (…) float64.
    """
    a, b = a.double(), b.double()
    size = (torch.linalg.vector_norm(a, dim=-1) + torch.linalg.vector_norm(b, dim=-1)) / 2
    return (torch.linalg.vector_norm(a - b, dim=-1) / size.clamp_min(_TINY)).mean(dim=-1)
