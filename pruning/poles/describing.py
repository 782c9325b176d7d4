"""Describe poles: size, exemplars, and correlations inside and to other poles."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor

from projector.errors import UserError, python_words
from projector.memory import size_text
from projector.naming.groups import group_label
from projector.naming.labels import RULES
from projector.projection.projection import Projection
from pruning.poles.clustering import Floats, Integers
from pruning.poles.poles import Pole, Poles, by_margin

# Bytes per entry of an N × N matrix: ρ from the covariance needs four float32 matrices at once.
_CORRELATION_BYTES = 16
_BLOCK = 256


def distance_to_mean(points: Floats, labels: Integers) -> Floats:
    """The distance of each neuron to the mean position of its pole, (n,); meaningless for noise."""
    groups = np.where(labels < 0, labels.max(initial=-1) + 1, labels)
    n_groups = int(groups.max(initial=0)) + 1
    counts = np.bincount(groups, minlength=n_groups)
    means = np.stack(
        [np.bincount(groups, column, n_groups) / np.maximum(counts, 1) for column in points.T], 1
    )
    distance: Floats = np.linalg.norm(points - means[groups], axis=1)
    return distance


def first_least(values: Floats, labels: Integers, n_poles: int) -> NDArray[np.bool_]:
    """The neuron with the lowest value in each pole."""
    is_least = np.zeros(labels.size, dtype=bool)
    for k in range(n_poles):
        members = (labels == k).nonzero()[0]
        is_least[members[values[members].argmin()]] = True
    return is_least


@dataclass(frozen=True)
class Correlations:
    """Mean ρ and |ρ| between poles, (K, K), NaN where unknown; each neuron's sum over its pole,
    (n,).
    """

    mean: Floats
    mean_absolute: Floats
    own: Floats
    own_absolute: Floats


def correlations_of(rho: Tensor, order: Tensor, labels: Integers, n_poles: int) -> Correlations:
    """Sum ρ and |ρ| over groups, in one pass each; O(N²) for any number of poles."""
    is_known = rho.diagonal()[order].isfinite().numpy()
    # Neurons in no pole are one more group.
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
        # A neuron's ρ with itself, 1, isn't the ρ of a pair.
        means.append(((totals[:n_poles, :n_poles] - torch.diag(counts)) / n_pairs).numpy())
        owns.append(sums[groups, torch.arange(order.numel())].numpy())
    return Correlations(*means, *owns)


def number_by_margin(
    labels: Integers, correlations: Correlations, *, absolute: bool
) -> tuple[Integers, Correlations]:
    """Renumber poles that were numbered by size by their margin; see :class:`Poles`."""
    mean = correlations.mean_absolute if absolute else correlations.mean
    others = np.where(np.eye(len(mean), dtype=bool), np.nan, mean)
    margins = [
        None if within is None else within - (_greatest(row) or 0.0)
        for within, row in zip(map(_known, mean.diagonal()), others, strict=True)
    ]
    order = np.array(by_margin(margins), dtype=np.int64)
    numbers = np.append(np.argsort(order), -1)
    square = np.ix_(order, order)
    return numbers[labels], replace(
        correlations,
        mean=correlations.mean[square],
        mean_absolute=correlations.mean_absolute[square],
    )


def describe(
    k: int,
    order: Tensor,
    labels: Integers,
    is_exemplar: NDArray[np.bool_],
    centrality: Floats | None,
    correlations: Correlations | None,
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


def label_poles(projection: Projection, poles: Poles) -> Poles:
    """Label each pole with what its neurons fire on, from their strongest examples.

    At the ends of an axis, labels describe the highest activations unless only the lowest agree.

    Args:
        projection: the projection that the poles were found in.
        poles: of one layer and site.

    Returns:
        The same poles with labels, or with the reason for missing labels in ``reasons``, for
        example if the projection keeps no examples.
    """
    if not poles.poles:
        return poles
    reasons = {name: text for name, text in poles.reasons.items() if name != "label"}
    try:
        examples, pieces = projection.examples(poles.layer, poles.site), projection.pieces
    except UserError as error:
        return replace(poles, reasons=reasons | {"label": error.worded(python_words)})
    rho = None
    if poles.settings.space == "abs-correlation":
        rho = projection.correlation(poles.layer, poles.site)
    labelled = []
    for k, pole in enumerate(poles.poles):
        members = (poles.labels == k).nonzero()[:, 0]
        # In |ρ| some neurons of a pole fire opposite to the rest.
        signs = None if rho is None else (rho[pole.exemplars[0], members] < 0).mul(-2).add(1)
        neurons = members.tolist()
        label = group_label(examples, pieces, neurons, None if signs is None else signs.tolist())
        if label is not None and label.sign < 0 and pole.axis is not None:
            # The lowest activations of one end are the highest of the other.
            highest = group_label(examples, pieces, neurons, sign=1)
            if highest is not None and (label.is_mixed or not highest.is_mixed):
                label = highest
        labelled.append(replace(pole, label=None if label is None else label.text))
    if any(pole.label is None for pole in labelled):
        reasons["label"] = "the examples of a pole's neurons do not vary"
    return replace(poles, poles=tuple(labelled), reasons=reasons, label_rules=RULES)


def _greatest(values: Floats) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.max()) if known.size else None


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def correlation_if_possible(
    projection: Projection, layer: int, site: str
) -> tuple[Tensor | None, str]:
    """ρ, or None and the reason."""
    if not projection.has_statistics:
        return None, "the projection holds no statistics"
    if not projection.has_statistics_of(layer, site):
        return None, "the map was placed without a matrix of correlations"
    n_neurons = projection.positions(layer, site).shape[0]
    needed, free = _CORRELATION_BYTES * n_neurons**2, psutil.virtual_memory().available
    if needed > free:
        return None, f"ρ needs {size_text(needed)} of memory, and {size_text(free)} is free"
    return projection.correlation(layer, site), ""
