"""Computations of the landing page: maps in two coordinates, and the strongest groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from projector.sites import MapKey
from pruning.poles.poles import Pole, Poles

# Most groups of one map, so that a list of groups covers several maps.
_MOST_OF_A_MAP = 3
# Share of a map's points that may lie beyond its edge.
_BEYOND = 0.004


@dataclass(frozen=True)
class Flat:
    """The points of one map for a small picture.

    Attributes:
        points: (M, 2) uint8, from the left and from the bottom, for neurons with a position.
        neurons: (M,) numbers of these neurons, ascending.
    """

    points: NDArray[np.uint8]
    neurons: NDArray[np.int64]


@dataclass(frozen=True)
class Group:
    """A pole with its map.

    Attributes:
        number: number of the pole in its map.
        margin: mean ρ inside minus the highest mean ρ to another pole; None if unknown.
    """

    layer: int
    site: str
    number: int
    pole: Pole
    margin: float | None


def flatten(positions: Tensor) -> Flat:
    """A map in two coordinates, centred and scaled to the picture.

    With more than two dimensions, the two widest principal axes are drawn. Positions on a line are
    drawn from left to right at different heights, so that dense places are visible.

    Args:
        positions: (N, d) floating point, NaN for a neuron without a position.
    """
    neurons = positions.isfinite().all(dim=1).nonzero()[:, 0]
    placed = positions[neurons].double()
    if not len(placed):
        return Flat(np.zeros((0, 2), np.uint8), neurons.numpy())
    if placed.shape[1] == 1:
        # Multiples of the golden ratio: any few neighbours are spread evenly.
        spread = (torch.arange(len(placed)) * 0.6180339887498949) % 1
        across = placed[:, 0]
        width = float(across.max() - across.min()) or 1.0
        shown = torch.stack([across, (spread - 0.5) * 0.5 * width], dim=1)
    elif placed.shape[1] == 2:
        shown = placed
    else:
        shown = _widest(placed)
    return Flat(_to_bytes(shown.numpy()), neurons.numpy())


def _widest(placed: Tensor) -> Tensor:
    """The two widest principal axes of (M, d) points, the greatest component of each positive."""
    centred = placed - placed.mean(dim=0)
    _, axes = torch.linalg.eigh(centred.T @ centred)
    axes = axes.flip(1)[:, :2]
    extreme = axes.gather(0, axes.abs().argmax(dim=0, keepdim=True))
    return centred @ (axes * extreme.sign())


def _to_bytes(points: NDArray[np.float64]) -> NDArray[np.uint8]:
    """0 to 255 along both axes, at one scale; the few outermost points lie on the edge."""
    low, high = np.quantile(points, (_BEYOND, 1 - _BEYOND), axis=0)
    reach = float((high - low).max()) / 2 or 1.0
    scaled = (points - (low + high) / 2) / reach
    return np.round((np.clip(scaled, -1, 1) + 1) * 127.5).astype(np.uint8)


def strongest_groups(found: Mapping[MapKey, Poles], most: int) -> list[Group]:
    """The groups that stand out most: distinct groups by margin, then the rest.

    The list has few groups of one map, so that it covers several maps.
    """
    groups = [
        Group(layer, site, k, pole, poles.margin(k))
        for (layer, site), poles in found.items()
        for k, pole in enumerate(poles.poles)
    ]
    groups.sort(key=lambda group: (not group.pole.distinct, -(group.margin or 0.0)))
    n_of_map: Counter[MapKey] = Counter()
    kept = []
    for group in groups:
        n_of_map[group.layer, group.site] += 1
        if n_of_map[group.layer, group.site] <= _MOST_OF_A_MAP:
            kept.append(group)
    return kept[:most]
