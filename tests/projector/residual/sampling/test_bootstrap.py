"""Bootstrap samples draw whole groups, once for both sets."""

from __future__ import annotations

import numpy as np

from projector.residual.sampling.bootstrap import resample_groups


def test_groups_are_drawn_whole_and_once_for_both_sets() -> None:
    # Groups 0 and 1 are of the first set, 2 and 3 of both, 4 and 5 of the second.
    groups = np.array([0, 0, 0, 1, 2, 3, 2, 3, 4, 5, 5])
    labels = np.arange(11) < 6
    drawn = resample_groups(labels, groups, 200, np.random.default_rng(0))
    for group in range(6):
        of_group = drawn[:, groups == group]
        assert (of_group == of_group[:, :1]).all()
        assert len(np.unique(of_group)) == 3
    for pair in ((0, 1), (2, 3), (4, 5)):
        firsts = [int(np.flatnonzero(groups == group)[0]) for group in pair]
        assert (drawn[:, firsts].sum(axis=1) == 2).all()
