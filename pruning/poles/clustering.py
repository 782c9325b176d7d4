"""Run HDBSCAN on the neurons of one map, in an order that doesn't depend on the given one.

Poles do not depend on the order of the neurons. HDBSCAN's groups do: distances between mutual
neighbours are equal by construction, and the one that comes first decides which group a border
neuron joins. So neurons are first put into a canonical order.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor

from projector.errors import UserError, named
from projector.memory import size_text
from projector.projection.projection import Projection
from pruning.poles.poles import PoleSettings

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Bytes for each entry of an N × N matrix. Clustering by ρ takes ρ in float32, and in float64 the
# distances, HDBSCAN's copy of them, and the copy that it searches for the nearest.
_CLUSTERING_BYTES = 28
_BLOCK = 256


def space_of(
    projection: Projection,
    layer: int,
    site: str,
    settings: PoleSettings,
    layout: str | None = None,
) -> tuple[Floats, Tensor, Tensor, Tensor | None]:
    """Points or distances to cluster; the neuron of each; which neurons are defined; ρ, if read."""
    projection.layout_name(layout)
    on_map = settings.space == "positions"
    # In the spaces of ρ, positions only break ties, and are the same for every layout.
    positions = projection.positions(layer, site, layout if on_map else None)
    rho: Tensor | None = None
    if on_map:
        is_defined = positions.isfinite().all(dim=1)
    else:
        _check_memory(positions.shape[0], layer, site, settings.space)
        rho = projection.correlation(layer, site)
        is_defined = rho.diagonal().isfinite()
    order = _canonical_order(positions, is_defined, rho)
    data = (
        positions[order].double().numpy()
        if on_map
        else _distances(rho, order, absolute=settings.space == "abs-correlation")
    )
    return data, order, is_defined, rho


def _canonical_order(positions: Tensor, is_defined: Tensor, rho: Tensor | None) -> Tensor:
    """Defined neurons in a canonical order; (n_defined,) int64.

    By the sum of their ρ, where that is the space: else its poles would depend on the map. Then by
    position, first coordinate first. Only what agrees in both is left as it comes.
    """
    keys = list(positions.double().numpy().T[::-1])
    if rho is not None:
        sums = torch.zeros(rho.shape[0], dtype=torch.int64)
        for start in range(0, rho.shape[0], _BLOCK):
            # Integers add up to the same sum in any order.
            rows = (rho[start : start + _BLOCK].double() * 2**40).round().nan_to_num()
            sums[start : start + _BLOCK] = rows.long().sum(dim=1)
        keys.append(sums.numpy())
    ranked = torch.from_numpy(np.lexsort(keys))
    return ranked[is_defined[ranked]]


def _distances(rho: Tensor | None, order: Tensor, *, absolute: bool) -> Floats:
    """1 − ρ or 1 − |ρ| among the neurons of ``order``, (n, n) float64."""
    assert rho is not None
    distances = np.empty((order.numel(), order.numel()))
    for start in range(0, order.numel(), _BLOCK):
        rows = rho[order[start : start + _BLOCK]][:, order]
        if not rows.isfinite().all():
            raise UserError(
                "correlations between defined neurons are NaN: the projection's statistics are "
                "damaged; make it again with `projector fit`"
            )
        block = (rows.abs() if absolute else rows).double().numpy()
        np.subtract(1.0, block, out=distances[start : start + _BLOCK])
    return distances.clip(min=0.0, out=distances)


def cluster(data: Floats, settings: PoleSettings) -> tuple[Integers, Floats, NDArray[np.bool_]]:
    """Run HDBSCAN on points or distances in canonical order; labels, strengths and exemplars.

    Exemplars are the neurons that stay longest as density rises, in each of the densest parts of a
    pole.
    """
    n = data.shape[0]
    fitted = fit_tree(data, settings)
    if fitted is None:
        return np.full(n, -1), np.zeros(n), np.zeros(n, dtype=bool)
    clusterer, tree = fitted
    labels = renumbered(clusterer.labels_)
    is_neuron = tree["child_size"] == 1
    parts, density = np.empty(n, dtype=np.int64), np.empty(n)
    parts[tree["child"][is_neuron]] = tree["parent"][is_neuron]
    density[tree["child"][is_neuron]] = tree["lambda_val"][is_neuron]
    greatest = np.zeros(int(tree["parent"].max()) + 1)
    np.maximum.at(greatest, parts, density)
    is_split = np.isin(parts, tree["parent"][~is_neuron])
    is_exemplar = (labels >= 0) & ~is_split & (density == greatest[parts])
    return labels, clusterer.probabilities_, is_exemplar


def fit_tree(data: Floats, settings: PoleSettings) -> tuple[Any, NDArray[Any]] | None:
    """Run HDBSCAN with its condensed tree; None if there are too few neurons for two groups."""
    # A layer is never one pole, so it has two or more, or none.
    if data.shape[0] < 2 * settings.min_cluster_size:
        return None
    from hdbscan import HDBSCAN

    clusterer = HDBSCAN(
        min_cluster_size=settings.min_cluster_size,
        min_samples=settings.effective_min_samples,
        cluster_selection_method=settings.selection,
        cluster_selection_epsilon=float(settings.epsilon),
        metric="euclidean" if settings.space == "positions" else "precomputed",
        approx_min_span_tree=False,
        core_dist_n_jobs=1,
    )
    # Neurons that coincide are infinitely dense: HDBSCAN warns, and continues.
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        clusterer.fit(data)
        return clusterer, clusterer.condensed_tree_.to_numpy()


def root_group(data: Floats, settings: PoleSettings) -> Integers:
    """The group at HDBSCAN's root, if no group splits off from it: labels 0 and −1.

    Neurons leave the root one by one as density rises. Its members are the neurons that leave at
    distances below the threshold that best divides the distances in two (Otsu 1979). All labels are
    −1 if groups split off, or if fewer than ``min_cluster_size`` neurons are left.
    """
    labels = np.full(data.shape[0], -1, dtype=np.int64)
    fitted = fit_tree(data, settings)
    if fitted is None:
        return labels
    _, tree = fitted
    if (tree["child_size"] > 1).any():
        return labels
    with np.errstate(divide="ignore"):
        distance = np.empty(data.shape[0])
        distance[tree["child"]] = 1 / tree["lambda_val"]
    members = distance <= _otsu(distance)
    if members.sum() >= settings.min_cluster_size:
        labels[members] = 0
    return labels


def _otsu(values: Floats) -> float:
    """The largest value of the lower of two parts whose means are farthest apart for their
    sizes."""
    ordered = np.sort(values)
    n_below = np.arange(1, ordered.size)
    sums = np.cumsum(ordered)
    below, above = sums[:-1] / n_below, (sums[-1] - sums[:-1]) / (ordered.size - n_below)
    spread = n_below * (ordered.size - n_below) * (above - below) ** 2
    return float(ordered[int(spread.argmax())])


def renumbered(found: Integers) -> Integers:
    """Renumber labels by size, the largest group first."""
    found = found.astype(np.int64)
    labels = found.copy()
    for new, old in enumerate(_by_size(found)):
        labels[found == old] = new
    return labels


def _by_size(labels: Integers) -> Integers:
    """Labels from the largest group to the smallest, then by their first member."""
    sizes = np.bincount(labels[labels >= 0])
    first = np.full(sizes.size, labels.size)
    members = (labels >= 0).nonzero()[0]
    np.minimum.at(first, labels[members], members)
    return np.lexsort((first, -sizes))


def _check_memory(n_neurons: int, layer: int, site: str, space: str) -> None:
    needed, free = _CLUSTERING_BYTES * n_neurons**2, psutil.virtual_memory().available
    if needed > free:
        raise UserError(
            f"out of memory: {named('space', space)} needs the {n_neurons:,} × {n_neurons:,} "
            f"distances of "
            f"layer {layer} {site}, {size_text(8 * n_neurons**2)}, and copies of them, "
            f"{size_text(needed)} in all, and {size_text(free)} is free: choose "
            f"{named('space', 'positions')}",
            setting="space",
            value=space,
        )
