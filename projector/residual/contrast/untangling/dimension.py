"""The number of directions over which variance is spread: the participation ratio."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["isotropic_dimension", "participation_ratio"]


def participation_ratio(centred: NDArray[np.float64]) -> float | None:
    """(tr C)² / tr C² of the samples' covariance C: k if k directions have the same variance.

    Args:
        centred: (n, H) samples without their mean.

    Returns:
        The ratio; None if there is no variance.
    """
    # Scaled, so that no square overflows or vanishes.
    largest = float(np.abs(centred).max())
    if not largest > 0:
        return None
    x = centred / largest
    gram = x @ x.T if len(x) <= x.shape[1] else x.T @ x
    return float(np.trace(gram)) ** 2 / float(np.square(gram).sum())


def isotropic_dimension(n: int, n_features: int) -> float:
    """The expected participation ratio of n samples of an isotropic Gaussian.

    The covariance is Wishart's with m = n − 1 degrees of freedom, and E[tr C²] / E[(tr C)²] = (m +
    H + 1) / (m H + 2), which is exactly the mean of the reciprocal of the ratio. The ratio
    approaches H for many samples, and can't exceed m.
    """
    m = n - 1
    return (m * n_features + 2) / (m + n_features + 1)
