"""Bootstrap samples of two sets whose samples belong together in groups."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from projector.residual.sampling.labels import Groups, Labels, group_kinds

__all__ = ["resample_groups"]


def resample_groups(
    labels: Labels, groups: Groups, n_draws: int, random: np.random.Generator
) -> NDArray[np.float64]:
    """How often each sample is drawn: whole groups, drawn with replacement once for both sets.

    Groups of the first set alone, of the second alone and of both are drawn among themselves, as
    many of each as there are, so that every draw has samples of both sets.

    Args:
        labels: (N,) whether a sample is of the first set.
        groups: (N,) the group of each.

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
