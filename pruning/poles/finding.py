"""Find poles, the groups of neurons that fire together, by HDBSCAN.

Poles are found on the map (``positions``), or in ρ itself, where the distance of two neurons is 1 −
ρ (``correlation``) or 1 − |ρ| (``abs-correlation``: an anti-correlated neuron is as redundant as a
correlated one, but lies far away on the map). A neuron in no pole is noise, −1: it doesn't lie in a
dense place, but another neuron may still be able to stand in for it.

Sources: Campello, Moulavi, Sander (2013), Density-Based Clustering Based on Hierarchical Density
Estimates; Malzer and Baum (2020), A Hybrid Approach to Hierarchical Density-Based Cluster Selection
(epsilon).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from projector.projection.projection import Projection
from pruning.poles.clustering import (
    Floats,
    Integers,
    cluster,
    fit_tree,
    renumbered,
    space_of,
)
from pruning.poles.describing import (
    correlation_if_possible,
    correlations_of,
    describe,
    distance_to_mean,
    first_least,
    number_by_margin,
)
from pruning.poles.poles import Poles, PoleSettings
from pruning.poles.tree import CondensedTree
from pruning.poles.validity import measure_validity


def choose_maps(
    projection: Projection, layers: Iterable[int] | None, sites: Iterable[str]
) -> list[tuple[int, str]]:
    """The (layer, site) pairs of these layers and sites, each once; None means all.

    Raises:
        UserError: if the projection lacks one.
    """
    maps = []
    for site in dict.fromkeys(sites):
        of_site = [layer for layer, s in projection.maps if s == site]
        # If blocks differ, all layers means all that have the site.
        for layer in of_site or projection.layers if layers is None else layers:
            projection.positions(layer, site)
            maps.append((layer, site))
    return sorted(set(maps))


def find_poles(
    projection: Projection,
    layer: int,
    site: str = "mlp_post",
    settings: PoleSettings | None = None,
    layout: str | None = None,
) -> Poles:
    """Find the poles of one layer and site.

    On the map it costs O(N log N) time and only one N × N matrix, ρ, for the figures; in the other
    spaces O(N²) time and 28 N² bytes.

    Args:
        projection: the projection to find poles in.
        layer: the layer, from 0.
        site: the site, such as ``mlp_post``.
        settings: None for the defaults of :class:`PoleSettings`.
        layout: the layout whose map the poles are found on; None for the first. It makes no
            difference in the spaces of ρ.

    Raises:
        UserError: if the projection has no such layer, site or layout; or, in the spaces of ρ, if
            it has no statistics or ρ doesn't fit in memory.
    """
    settings = settings or PoleSettings()
    space = space_of(projection, layer, site, settings, layout)
    return _told(projection, layer, site, settings, layout, space, cluster(space[0], settings))


def poles_of_labels(
    projection: Projection, layer: int, site: str, settings: PoleSettings, labels: Integers
) -> Poles:
    """Describe groups that were found in another way as poles; all strengths are 1.

    Args:
        settings: with one of the spaces of ρ.
        labels: group of each defined neuron, in the order of
            :func:`pruning.poles.clustering.space_of`.
    """
    space, is_member = space_of(projection, layer, site, settings), labels >= 0
    found = labels, is_member.astype(np.float64), is_member
    return _told(projection, layer, site, settings, None, space, found)


def _told(
    projection: Projection,
    layer: int,
    site: str,
    settings: PoleSettings,
    layout: str | None,
    space: tuple[Floats, Tensor, Tensor, Tensor | None],
    found: tuple[Integers, Floats, NDArray[np.bool_]],
) -> Poles:
    """Describe groups as poles."""
    on_map, is_absolute = settings.space == "positions", settings.space == "abs-correlation"
    data, order, is_defined, rho = space
    labels, strengths, is_exemplar = found
    own_layout = projection.layout(layout if on_map else None)
    n_neurons = is_defined.numel()
    n_poles = int(labels.max(initial=-1)) + 1

    reasons: dict[str, str] = {}
    validity, why = measure_validity(data, labels, own_layout.settings.dim, is_distance=not on_map)
    if validity is None:
        reasons["validity"] = why
    if n_poles and rho is None:
        rho, why = correlation_if_possible(projection, layer, site)
        if rho is None:
            reasons["rho"] = why
    centrality = distance_to_mean(data, labels) if on_map else None
    del data, space
    correlations = None
    if n_poles and rho is not None:
        correlations = correlations_of(rho, order, labels, n_poles)
        labels, correlations = number_by_margin(labels, correlations, absolute=is_absolute)
        if centrality is None:
            # The lowest mean distance is the highest sum of ρ.
            centrality = -(correlations.own_absolute if is_absolute else correlations.own)
            is_exemplar = first_least(centrality, labels, n_poles)
    poles = tuple(
        describe(k, order, labels, is_exemplar, centrality, correlations) for k in range(n_poles)
    )
    if not order.numel():
        reasons["noise_share"] = "no neuron has a position or a correlation"
    return Poles(
        layer=layer,
        site=site,
        settings=settings,
        labels=_spread(torch.from_numpy(labels), order, n_neurons, -1),
        strengths=_spread(torch.from_numpy(strengths).float(), order, n_neurons, 0),
        poles=poles,
        undefined=tuple((~is_defined).nonzero()[:, 0].tolist()),
        noise_share=float((labels < 0).mean()) if order.numel() else None,
        validity=validity,
        reasons=reasons,
    )


def condensed_tree(
    projection: Projection,
    layer: int,
    site: str,
    settings: PoleSettings | None = None,
    layout: str | None = None,
) -> CondensedTree:
    """The tree of how groups of one layer and site split as density rises; costs as much as finding
    poles.

    Raises:
        UserError: see :func:`find_poles`.
    """
    settings = settings or PoleSettings()
    data, order, _, rho = space_of(projection, layer, site, settings, layout)
    found = fit_tree(data, settings)
    if found is None:
        return CondensedTree(())
    clusterer, table = found
    labels = renumbered(clusterer.labels_)
    if rho is None:
        rho, _ = correlation_if_possible(projection, layer, site)
    n_poles = int(labels.max(initial=-1)) + 1
    if rho is not None and n_poles:
        correlations = correlations_of(rho, order, labels, n_poles)
        is_absolute = settings.space == "abs-correlation"
        labels, _ = number_by_margin(labels, correlations, absolute=is_absolute)
    return CondensedTree.of_table(table, labels)


def _spread(values: Tensor, order: Tensor, n_neurons: int, rest: float) -> Tensor:
    """Values in canonical order back in the order of the neurons; ``rest`` for undefined ones."""
    spread = torch.full((n_neurons,), rest, dtype=values.dtype)
    spread[order] = values
    return spread
