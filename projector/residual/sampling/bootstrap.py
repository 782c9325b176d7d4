"""Bootstrap samples of two sets with grouped samples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from projector.residual.sampling.labels import Groups, Labels, group_kinds

__all__ = ["resample_groups"]


def resample_groups(
    labels: Labels, groups: Groups, n_draws: int, random: np.random.Generator
) -> NDArray[np.float64]:
    """Draw whole groups with replacement, once for both sets; returns how often each sample is
    drawn.

    Groups in the first set only, in the second set only and in both sets are drawn separately,
    keeping their numbers, so that every draw has samples of both sets.

    Args:
        labels: (N,), whether a sample belongs to the first set.
        groups: (N,), the group of each sample.

    Returns:
        (``n_draws``, N) counts.
    """
    of_sample, sizes, kinds = group_kinds(labels, groups)
    counts = np.zeros((n_draws, len(sizes)))
    for kind in range(3):
        own = np.flatnonzero(kinds == kind)
        if len(own):
            shares = np.full(len(own), 1 / len(own))
            counts[:, own] = random.multinomial(len(own), shares, size=n_draws)
    return counts[:, of_sample]
