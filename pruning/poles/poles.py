"""Poles: groups of neurons that fire together, found by HDBSCAN, and the file that keeps them.

A pole is looked for on the map (``positions``), or in ρ itself, where the distance of two neurons
is 1 − ρ (``correlation``) or 1 − |ρ| (``abs-correlation``: an anti-correlated neuron is as
redundant as a correlated one, but lies far away on the map). A neuron in no pole is noise, −1: it
lies in no dense place, which does not say that no other neuron could stand in for it.

Poles do not depend on the order of the neurons. HDBSCAN's do: distances between mutual neighbours
are equal by construction, and which of them is taken first decides where a border neuron belongs.
So neurons are put into an order of their own first.

Sources: Campello, Moulavi, Sander (2013), Density-Based Clustering Based on Hierarchical Density
Estimates; Malzer and Baum (2020), A Hybrid Approach to Hierarchical Density-Based Cluster Selection
(epsilon).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor

from projector.errors import UserError
from projector.memory import size_text
from projector.projection.projection import FACTS_FILE, Projection
from projector.sites import map_name
from pruning.poles.tree import CondensedTree
from pruning.poles.validity import measure_validity

FORMAT = "transformer-poles"
FORMAT_VERSION = 1
POLES_FILE = "poles.json"
SPACES = ("positions", "correlation", "abs-correlation")
SELECTIONS = ("eom", "leaf")

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Bytes for each entry of an N × N matrix. ρ from the covariance: four float32 matrices at once.
_CORRELATION_BYTES = 16
# Clustering by ρ: ρ in float32, and in float64 the distances, HDBSCAN's copy of them, and the copy
# in which it looks for the nearest.
_CLUSTERING_BYTES = 28
_BLOCK = 256


@dataclass(frozen=True)
class PoleSettings:
    """What makes a group of neurons a pole.

    Attributes:
        space: where distances are taken: ``positions``, ``correlation`` (1 − ρ) or
            ``abs-correlation`` (1 − |ρ|).
        min_cluster_size: the fewest neurons of a pole.
        min_samples: how many neighbours make a neighbourhood dense: the more, the more noise.
            None: ``min_cluster_size``.
        selection: ``eom``, the poles that last longest as density rises, or ``leaf``, the smallest.
        epsilon: poles closer than this are one, in the distance of the space.
    """

    space: str = "positions"
    # Of a layer of some hundred neurons, larger ones leave two poles, one of them nearly all.
    min_cluster_size: int = 3
    min_samples: int | None = None
    selection: str = "eom"
    epsilon: float = 0.0

    def __post_init__(self) -> None:
        if self.space not in SPACES:
            raise UserError(f"unknown --space '{self.space}': choose from {', '.join(SPACES)}")
        if self.selection not in SELECTIONS:
            raise UserError(
                f"unknown --selection '{self.selection}': choose from {', '.join(SELECTIONS)}"
            )
        if self.min_cluster_size < 2:
            raise UserError(
                f"--min-cluster-size {self.min_cluster_size} makes no groups: give 2 or more"
            )
        if self.min_samples is not None and self.min_samples < 1:
            raise UserError(f"--min-samples {self.min_samples} is too few: give 1 or more")
        if not (math.isfinite(self.epsilon) and self.epsilon >= 0):
            raise UserError(f"--epsilon {self.epsilon} is no distance: give 0 or a positive number")

    @property
    def effective_min_samples(self) -> int:
        return self.min_cluster_size if self.min_samples is None else self.min_samples

    @property
    def key(self) -> str:
        """What results are kept under; equal for settings that mean the same."""
        return (
            f"space={self.space},min_cluster_size={self.min_cluster_size},"
            f"min_samples={self.effective_min_samples},selection={self.selection},"
            f"epsilon={abs(float(self.epsilon))!r}"
        )


@dataclass(frozen=True)
class Pole:
    """One group of neurons. A ρ that can't be given is None, and the layer's ``reasons`` say why.

    Attributes:
        size: neurons in it.
        exemplars: neurons that stand for it, most central first: in ``positions`` those where it is
            densest, ordered by the distance to its mean position; in the others its medoid, the
            neuron with the least mean distance to the rest.
        within_rho: mean ρ over its pairs.
        within_absolute_rho: mean |ρ| over its pairs.
        between_rho: mean ρ to the pole for which that is highest.
        between_absolute_rho: the same of |ρ|.
        opposite: the pole to which its mean ρ is lowest, where that is below 0.
        opposite_rho: that mean ρ.
    """

    size: int
    exemplars: tuple[int, ...]
    within_rho: float | None = None
    within_absolute_rho: float | None = None
    between_rho: float | None = None
    between_absolute_rho: float | None = None
    opposite: int | None = None
    opposite_rho: float | None = None


@dataclass(frozen=True, eq=False)
class Poles:
    """The poles of one layer and site, largest first.

    Poles of equal size stand in the order of their first neuron: by position, first coordinate
    first, and in the spaces of ρ by the sum of a neuron's ρ.

    Attributes:
        layer, site, settings: where they were found, and how.
        labels: (N,) int64, the pole of each neuron; −1 for noise and for undefined neurons.
        strengths: (N,) float32 in [0, 1], how firmly a neuron belongs to its pole; 0 for noise.
        poles: pole k is the one that ``labels`` call k.
        undefined: neurons without a place in the space, such as dead ones.
        noise_share: neurons in no pole, as a share of the defined ones.
        validity: DBCV in [−1, 1]; see :func:`pruning.poles.validity.measure_validity`.
        reasons: figure → why it is None.
    """

    layer: int
    site: str
    settings: PoleSettings
    labels: Tensor
    strengths: Tensor
    poles: tuple[Pole, ...]
    undefined: tuple[int, ...]
    noise_share: float | None
    validity: float | None
    reasons: dict[str, str]

    @property
    def n_neurons(self) -> int:
        return self.labels.numel()

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(pole.size for pole in self.poles)

    @property
    def exemplars(self) -> tuple[tuple[int, ...], ...]:
        """Of each pole, the neurons that stand for it, most central first."""
        return tuple(pole.exemplars for pole in self.poles)

    @property
    def opposites(self) -> tuple[int | None, ...]:
        """Of each pole, the pole that is most opposed to it, if any."""
        return tuple(pole.opposite for pole in self.poles)

    def figures(self) -> dict[str, Any]:
        """All but the neurons of each pole, for JSON."""
        return {
            "layer": self.layer,
            "site": self.site,
            "n_neurons": self.n_neurons,
            "undefined": list(self.undefined),
            "noise_share": self.noise_share,
            "validity": self.validity,
            "reasons": self.reasons,
            "poles": [asdict(pole) | {"exemplars": list(pole.exemplars)} for pole in self.poles],
        }

    def as_dict(self) -> dict[str, Any]:
        """Everything, for JSON: each pole has its neurons and their strengths."""
        figures = self.figures()
        for k, pole in enumerate(figures["poles"]):
            neurons = (self.labels == k).nonzero()[:, 0]
            pole["neurons"] = neurons.tolist()
            # The shortest decimals that read back as the same float32.
            pole["strengths"] = [float(str(s)) for s in self.strengths[neurons].numpy()]
        return figures


def choose_maps(
    projection: Projection, layers: Iterable[int] | None, sites: Iterable[str]
) -> list[tuple[int, str]]:
    """Every (layer, site) of these layers and sites, each once; of all layers where None.

    Raises:
        UserError: if the projection lacks one.
    """
    maps = []
    for site in dict.fromkeys(sites):
        of_site = [layer for layer, s in projection.maps if s == site]
        # Of a model whose blocks differ, all layers are those that have the site.
        for layer in of_site or projection.layers if layers is None else layers:
            projection.positions(layer, site)
            maps.append((layer, site))
    return sorted(set(maps))


def find_poles(
    projection: Projection,
    layer: int,
    site: str = "mlp_post",
    settings: PoleSettings | None = None,
) -> Poles:
    """The poles of one layer and site.

    On the map it costs O(N log N) time and no N × N matrix but ρ, for the figures; in the other
    spaces O(N²) time and 28 N² bytes.

    Args:
        settings: :class:`PoleSettings`' defaults where None.

    Raises:
        UserError: if the projection has no such layer or site, or the space is one of ρ and it has
            no statistics, or their matrix does not fit into memory.
    """
    settings = settings or PoleSettings()
    positions = projection.positions(layer, site)
    on_map = settings.space == "positions"
    data, order, is_defined, rho = _space_of(projection, layer, site, settings)
    labels, strengths, is_exemplar = _cluster(data, settings)
    n_poles = int(labels.max(initial=-1)) + 1

    reasons: dict[str, str] = {}
    validity, why = measure_validity(data, labels, projection.dim, is_distance=not on_map)
    if validity is None:
        reasons["validity"] = why
    if n_poles and rho is None:
        rho, why = _correlation_if_possible(projection, layer, site)
        if rho is None:
            reasons["rho"] = why
    centrality = _distance_to_mean(data, labels) if on_map else None
    del data
    correlations = None
    if n_poles and rho is not None:
        correlations = _correlations(rho, order, labels, n_poles)
        if centrality is None:
            # The least mean distance is the greatest sum of ρ.
            is_absolute = settings.space == "abs-correlation"
            centrality = -(correlations.own_absolute if is_absolute else correlations.own)
            is_exemplar = _first_least(centrality, labels, n_poles)
    poles = tuple(
        _describe(k, order, labels, is_exemplar, centrality, correlations) for k in range(n_poles)
    )
    if not order.numel():
        reasons["noise_share"] = "no neuron is defined"
    return Poles(
        layer=layer,
        site=site,
        settings=settings,
        labels=_spread(torch.from_numpy(labels), order, positions.shape[0], -1),
        strengths=_spread(torch.from_numpy(strengths).float(), order, positions.shape[0], 0),
        poles=poles,
        undefined=tuple((~is_defined).nonzero()[:, 0].tolist()),
        noise_share=float((labels < 0).mean()) if order.numel() else None,
        validity=validity,
        reasons=reasons,
    )


def condensed_tree(
    projection: Projection, layer: int, site: str, settings: PoleSettings | None = None
) -> CondensedTree:
    """How the groups of one layer and site split as density rises; costs what the poles do.

    Raises:
        UserError: see :func:`find_poles`.
    """
    settings = settings or PoleSettings()
    data = _space_of(projection, layer, site, settings)[0]
    found = _fit(data, settings)
    if found is None:
        return CondensedTree(())
    clusterer, table = found
    return CondensedTree.of_table(table, _renumbered(clusterer.labels_))


def _space_of(
    projection: Projection, layer: int, site: str, settings: PoleSettings
) -> tuple[Floats, Tensor, Tensor, Tensor | None]:
    """What is clustered, points or distances; which neuron each is; who is defined; ρ, if read."""
    positions = projection.positions(layer, site)
    on_map = settings.space == "positions"
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
    """Defined neurons in an order of their own; (n_defined,) int64.

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


def _cluster(data: Floats, settings: PoleSettings) -> tuple[Integers, Floats, NDArray[np.bool_]]:
    """HDBSCAN on points or distances in canonical order: labels, strengths, who is an exemplar.

    Exemplars are those that stay longest as density rises, in each of the densest parts of a pole.
    """
    n = data.shape[0]
    fitted = _fit(data, settings)
    if fitted is None:
        return np.full(n, -1), np.zeros(n), np.zeros(n, dtype=bool)
    clusterer, tree = fitted
    labels = _renumbered(clusterer.labels_)
    is_neuron = tree["child_size"] == 1
    parts, density = np.empty(n, dtype=np.int64), np.empty(n)
    parts[tree["child"][is_neuron]] = tree["parent"][is_neuron]
    density[tree["child"][is_neuron]] = tree["lambda_val"][is_neuron]
    greatest = np.zeros(int(tree["parent"].max()) + 1)
    np.maximum.at(greatest, parts, density)
    is_split = np.isin(parts, tree["parent"][~is_neuron])
    is_exemplar = (labels >= 0) & ~is_split & (density == greatest[parts])
    return labels, clusterer.probabilities_, is_exemplar


def _fit(data: Floats, settings: PoleSettings) -> tuple[Any, NDArray[Any]] | None:
    """HDBSCAN and its condensed tree; None for too few neurons to be two groups."""
    # A layer is never one pole, so it has at least two or none.
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
    # Neurons that coincide are infinitely dense: it says so, and goes on.
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        clusterer.fit(data)
        return clusterer, clusterer.condensed_tree_.to_numpy()


def _renumbered(found: Integers) -> Integers:
    """Labels by size, the largest first."""
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


def _distance_to_mean(points: Floats, labels: Integers) -> Floats:
    """Distance of each neuron to the mean position of its pole, (n,); of no meaning for noise."""
    groups = np.where(labels < 0, labels.max(initial=-1) + 1, labels)
    n_groups = int(groups.max(initial=0)) + 1
    counts = np.bincount(groups, minlength=n_groups)
    means = np.stack(
        [np.bincount(groups, column, n_groups) / np.maximum(counts, 1) for column in points.T], 1
    )
    distance: Floats = np.linalg.norm(points - means[groups], axis=1)
    return distance


def _first_least(values: Floats, labels: Integers, n_poles: int) -> NDArray[np.bool_]:
    """The one neuron of each pole whose value is least."""
    is_least = np.zeros(labels.size, dtype=bool)
    for k in range(n_poles):
        members = (labels == k).nonzero()[0]
        is_least[members[values[members].argmin()]] = True
    return is_least


@dataclass(frozen=True)
class _Correlations:
    """Mean ρ and |ρ| between poles, (K, K), NaN where unknown; and of each neuron, (n,), the sum
    over its own pole."""

    mean: Floats
    mean_absolute: Floats
    own: Floats
    own_absolute: Floats


def _correlations(rho: Tensor, order: Tensor, labels: Integers, n_poles: int) -> _Correlations:
    """Group sums in one pass over ρ each, O(N²) whatever the number of poles."""
    is_known = rho.diagonal()[order].isfinite().numpy()
    # Those that count nowhere are one more group.
    groups = torch.from_numpy(np.where((labels >= 0) & is_known, labels, n_poles))
    counts = torch.bincount(groups, minlength=n_poles + 1)[:n_poles].double()
    n_pairs = torch.outer(counts, counts) - torch.diag(counts)
    means: list[Floats] = []
    owns: list[Floats] = []
    for absolute in (False, True):
        sums = torch.zeros(n_poles + 1, order.numel(), dtype=torch.float64)
        for start in range(0, order.numel(), _BLOCK):
            rows = rho[order[start : start + _BLOCK]][:, order]
            sums.index_add_(
                0, groups[start : start + _BLOCK], (rows.abs() if absolute else rows).double()
            )
        totals = torch.zeros(n_poles + 1, n_poles + 1, dtype=torch.float64)
        totals.index_add_(1, groups, sums)
        # A neuron's ρ with itself, 1, is no pair's.
        means.append(((totals[:n_poles, :n_poles] - torch.diag(counts)) / n_pairs).numpy())
        owns.append(sums[groups, torch.arange(order.numel())].numpy())
    return _Correlations(*means, *owns)


def _describe(
    k: int,
    order: Tensor,
    labels: Integers,
    is_exemplar: NDArray[np.bool_],
    centrality: Floats | None,
    correlations: _Correlations | None,
) -> Pole:
    members = labels == k
    chosen = (members & is_exemplar).nonzero()[0]
    if centrality is not None:
        chosen = chosen[np.argsort(centrality[chosen], kind="stable")]
    size, exemplars = int(members.sum()), tuple(order[torch.from_numpy(chosen)].tolist())
    if correlations is None:
        return Pole(size, exemplars)
    others = np.arange(correlations.mean.shape[0]) != k
    row = np.where(others, correlations.mean[k], np.nan)
    row_absolute = np.where(others, correlations.mean_absolute[k], np.nan)
    lowest = int(np.argmin(np.where(np.isfinite(row), row, np.inf)))
    is_opposed = bool(row[lowest] < 0)
    return Pole(
        size=size,
        exemplars=exemplars,
        within_rho=_known(correlations.mean[k, k]),
        within_absolute_rho=_known(correlations.mean_absolute[k, k]),
        between_rho=_greatest(row),
        between_absolute_rho=_greatest(row_absolute),
        opposite=lowest if is_opposed else None,
        opposite_rho=float(row[lowest]) if is_opposed else None,
    )


def _greatest(values: Floats) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.max()) if known.size else None


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _spread(values: Tensor, order: Tensor, n_neurons: int, rest: float) -> Tensor:
    """Values in canonical order back in the order of the neurons; ``rest`` for undefined ones."""
    spread = torch.full((n_neurons,), rest, dtype=values.dtype)
    spread[order] = values
    return spread


def _check_memory(n_neurons: int, layer: int, site: str, space: str) -> None:
    needed, free = _CLUSTERING_BYTES * n_neurons**2, psutil.virtual_memory().available
    if needed > free:
        raise UserError(
            f"out of memory: --space {space} needs the {n_neurons:,} × {n_neurons:,} distances of "
            f"layer {layer} {site}, {size_text(8 * n_neurons**2)}, and copies of them, "
            f"{size_text(needed)} in all, and {size_text(free)} are free: choose --space positions"
        )


def _correlation_if_possible(
    projection: Projection, layer: int, site: str
) -> tuple[Tensor | None, str]:
    """ρ, or None and why."""
    if not projection.has_statistics:
        return None, "the projection was saved without statistics"
    if not projection.has_statistics_of(layer, site):
        return None, "the map was placed without a matrix of correlations"
    n_neurons = projection.positions(layer, site).shape[0]
    needed, free = _CORRELATION_BYTES * n_neurons**2, psutil.virtual_memory().available
    if needed > free:
        return None, f"ρ takes {size_text(needed)} of memory, and {size_text(free)} are free"
    return projection.correlation(layer, site), ""


# The file


def check_poles_file(folder: str | Path) -> None:
    """Raise a UserError if poles can't be saved in this folder, before they are looked for."""
    where = Path(folder)
    _read(where)
    if not os.access(where, os.W_OK | os.X_OK):
        raise UserError(f"'{where}' can't be written to: copy the projection to another folder")


def save_poles(folder: str | Path, poles: Iterable[Poles]) -> Path:
    """Add poles to the file beside the projection in ``folder``, in one step; returns its path.

    Those of equal settings, layer and site are replaced. Poles of a projection that was replaced
    since are dropped.

    Raises:
        UserError: if there is no projection, the file that is there is damaged, or it can't be
            written: then the old one is left.
    """
    where = Path(folder)
    content = _read(where)
    results = content["results"]
    for one in poles:
        entry = results.setdefault(one.settings.key, {"settings": _settings_dict(one), "maps": {}})
        entry["maps"][map_name(one.layer, one.site)] = one.as_dict()
    content["results"] = {
        key: results[key]
        | {"maps": dict(sorted(results[key]["maps"].items(), key=lambda item: _rank(item[1])))}
        for key in sorted(results)
    }
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    # A list of numbers on a line.
    text = re.sub(r"\[[\s\d.,e+-]*\]", lambda found: " ".join(found[0].split()), text) + "\n"
    path, partial = where / POLES_FILE, where / f".{POLES_FILE}.partial"
    try:
        try:
            partial.write_text(text, encoding="utf-8")
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"'{path}' can't be written: {error.strerror or error}") from error
    return path


def load_poles(
    folder: str | Path, layer: int, site: str = "mlp_post", settings: PoleSettings | None = None
) -> Poles | None:
    """Poles that :func:`save_poles` kept, or None: none were, or for another projection.

    Raises:
        UserError: if there is no projection, or the file is damaged or of another version.
    """
    where, settings = Path(folder), settings or PoleSettings()
    entry = _read(where)["results"].get(settings.key)
    if entry is None:
        return None
    try:
        kept = entry["maps"].get(map_name(layer, site))
        return None if kept is None else _from_dict(kept, settings)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError) as error:
        raise _damaged(where / POLES_FILE, map_name(layer, site)) from error


def _from_dict(kept: dict[str, Any], settings: PoleSettings) -> Poles:
    labels = torch.full((kept["n_neurons"],), -1, dtype=torch.int64)
    strengths = torch.zeros(kept["n_neurons"])
    poles = []
    for k, pole in enumerate(kept["poles"]):
        neurons = torch.tensor(pole.pop("neurons"), dtype=torch.int64)
        if neurons.numel() != pole["size"] or neurons.min() < 0 or (labels[neurons] >= 0).any():
            raise ValueError("a pole's neurons")
        labels[neurons] = k
        strengths[neurons] = torch.tensor(pole.pop("strengths"), dtype=torch.float32)
        poles.append(Pole(**pole | {"exemplars": tuple(pole["exemplars"])}))
    return Poles(
        layer=kept["layer"],
        site=kept["site"],
        settings=settings,
        labels=labels,
        strengths=strengths,
        poles=tuple(poles),
        undefined=tuple(kept["undefined"]),
        noise_share=kept["noise_share"],
        validity=kept["validity"],
        reasons=dict(kept["reasons"]),
    )


def _settings_dict(poles: Poles) -> dict[str, Any]:
    settings = asdict(poles.settings)
    # As the key has them.
    return settings | {
        "min_samples": poles.settings.effective_min_samples,
        "epsilon": abs(float(poles.settings.epsilon)),
    }


def _rank(kept: dict[str, Any]) -> tuple[int, str]:
    return kept["layer"], kept["site"]


def _read(where: Path) -> dict[str, Any]:
    """The file's content; empty where there is none, or it is of another projection."""
    facts, path = where / FACTS_FILE, where / POLES_FILE
    if not facts.exists():
        raise UserError(f"'{where}' is no projection: {FACTS_FILE} is missing")
    fingerprint = hashlib.sha256(facts.read_bytes()).hexdigest()
    empty = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "projection": fingerprint,
        "results": {},
    }
    if not path.exists():
        return empty
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(path, "it is not JSON") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"'{path}' is not the work of this program: move it away")
    version = content.get("format_version")
    if version != FORMAT_VERSION:
        raise UserError(
            f"'{path}' has format version {version}, and this program reads {FORMAT_VERSION}: "
            "upgrade the program, or delete it and find the poles again with `pruning poles`"
        )
    if content.get("projection") != fingerprint:
        return empty
    try:
        for entry in content["results"].values():
            for kept in entry["maps"].values():
                _rank(kept)
    except (KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, f"{error} is missing or wrong") from error
    return content


def _damaged(path: Path, what: str) -> UserError:
    return UserError(
        f"'{path}' is damaged ({what}): delete it, and find the poles again with `pruning poles`"
    )
