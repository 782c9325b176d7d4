"""Mean cosines of all pairs of samples in closed form, and the alignment of centred samples."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "alignment",
    "isotropic_alignment",
    "mean_cosine_between",
    "mean_cosine_within",
]

Samples = NDArray[np.float64]


def mean_cosine_within(x: Samples) -> float | None:
    """Mean cosine of two different samples: (‖Σ u‖² − n) / (n (n − 1)) for unit vectors u.

    Samples with length 0 have no cosine and are left out.

    Args:
        x: (n, H).

    Returns:
        None if fewer than two samples have a length.
    """
    u = _units(x)
    n = len(u)
    if n < 2:
        return None
    total = u.sum(axis=0)
    return _bounded((float(total @ total) - n) / (n * (n - 1)))


def mean_cosine_between(a: Samples, b: Samples) -> float | None:
    """Mean cosine of a sample of one set (n, H) and a sample of the other (m, H); None if
    undefined.
    """
    u, v = _units(a), _units(b)
    if not len(u) or not len(v):
        return None
    return _bounded(float(u.mean(axis=0) @ v.mean(axis=0)))


def alignment(x: Samples) -> float | None:
    """Root mean square cosine of two different samples: 1 if all lie on one axis, in either
    direction.

    Args:
        x: (n, H), usually centred.

    Returns:
        None if fewer than two samples have a length.
    """
    u = _units(x)
    n = len(u)
    if n < 2:
        return None
    squares = float(np.square(u @ u.T if n <= u.shape[1] else u.T @ u).sum())
    return math.sqrt(min(max((squares - n) / (n * (n - 1)), 0.0), 1.0))


def isotropic_alignment(n: int, n_features: int) -> float:
    """The expected :func:`alignment` of n centred samples of an isotropic Gaussian.

    Two random directions have a mean squared cosine of 1 / H, and centring gives every cosine a
    mean of −1 / (n − 1).
    """
    return math.sqrt(min(1 / n_features + 1 / (n - 1) ** 2, 1.0))


def _units(x: Samples) -> Samples:
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    has_length = lengths[:, 0] > 0
    return x[has_length] / lengths[has_length]


def _bounded(cosine: float) -> float:
    # Rounding leaves the cosine of equal vectors a little above 1.
    return min(max(cosine, -1.0), 1.0)
