"""Measure how well groups are separated: density-based clustering validity (Moulavi et al.

2014).
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# The sum of squared sizes beyond which the spanning trees within groups take minutes: a core does
# about four million a second.
_MOST_PAIRS = 40_000_000
_BLOCK = 512


def measure_validity(
    data: Floats, labels: Integers, dim: int, *, is_distance: bool
) -> tuple[float | None, str]:
    """DBCV in [−1, 1], higher where groups are dense and far apart; noise counts against it.

    The figure equals ``hdbscan.validity.validity_index``, which compares groups pair by pair in a
    loop and takes minutes if there are many; here all are compared at once, block by block. Costs
    O(Σ size²) memory and O(M²) time for M neurons in groups.

    Args:
        data: (N, d) points, or (N, N) distances.
        labels: (N,), 0 … n_groups − 1, and −1 for noise; every group holds at least two.
        dim: d, the exponent of the density.
        is_distance: whether ``data`` holds distances.

    Returns:
        The figure or None, and the reason for None (otherwise empty).

    Source: Moulavi, Jaskowiak, Campello, Zimek, Sander (2014), Density-Based Clustering Validation.
    """
    sizes = np.bincount(labels[labels >= 0])
    if sizes.size == 0:
        return None, "the map has no pole"
    if sizes.size == 1:
        return None, "the map has only one pole, and validity compares poles"
    if int((sizes.astype(np.int64) ** 2).sum()) > _MOST_PAIRS:
        largest = int(sizes.max())
        return None, f"it would take minutes to compute: the largest pole has {largest:,} neurons"
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        value = _validity(data, labels, sizes, dim, is_distance)
    if not np.isfinite(value):
        return None, "neurons coincide, or lie so close that their density overflows"
    return float(value), ""


def _validity(
    data: Floats, labels: Integers, sizes: Integers, dim: int, is_distance: bool
) -> float:
    from hdbscan.validity import all_points_core_distance, internal_minimum_spanning_tree

    inner, cores = [], []
    sparseness = np.empty(sizes.size)
    for group in range(sizes.size):
        members = (labels == group).nonzero()[0]
        distance = _between(data, members, members, is_distance)
        core = all_points_core_distance(distance.copy(), d=float(dim))
        np.maximum(distance, core, out=distance)
        np.maximum(distance, core[:, None], out=distance)
        if not np.isfinite(distance).all():
            return float("nan")
        nodes, edges = internal_minimum_spanning_tree(distance)
        sparseness[group] = edges[:, 2].max()
        inner.append(members[nodes])
        cores.append(core[nodes])
    nodes, core = np.concatenate(inner), np.concatenate(cores)
    group_of = labels[nodes]
    separation = np.full(sizes.size, np.inf)
    for start in range(0, nodes.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        distance = _between(data, nodes[block], nodes, is_distance)
        np.maximum(distance, core, out=distance)
        np.maximum(distance, core[block, None], out=distance)
        distance[group_of[block, None] == group_of] = np.inf
        np.minimum.at(separation, group_of[block], distance.min(axis=1))
    scores = (separation - sparseness) / np.maximum(separation, sparseness)
    return float((sizes / labels.size * scores).sum())


def _between(data: Floats, rows: Integers, columns: Integers, is_distance: bool) -> Floats:
    from scipy.spatial.distance import cdist

    distance = data[np.ix_(rows, columns)] if is_distance else cdist(data[rows], data[columns])
    return np.asarray(distance, dtype=np.float64)
