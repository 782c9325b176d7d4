"""Statistics of every pair of layers for the matrix of layers, with both controls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from dashboard.drawing.text import number
from projector.statistics.cross_layer.records import (
    SHARE_BY_CHANCE,
    CrossLayerFacts,
    LayerPair,
    Level,
)

Value = Callable[[LayerPair], float | None]


@dataclass(frozen=True)
class Measure:
    """One figure for every pair of layers.

    Attributes:
        label: its name in the field.
        axis: its name on an axis or a colour bar.
        noun: its name in a sentence.
        form: format of the number, as ``format`` takes it.
        help: its definition.
        controls: description of its controls.
        panels: its matrices by title: first the neurons, then the controls.
    """

    label: str
    axis: str
    noun: str
    form: str
    help: str
    controls: str
    panels: Mapping[str, Value]

    def text(self, value: float) -> str:
        """A value as text."""
        return number(value, self.form)


@dataclass(frozen=True)
class AtDistance:
    """A figure over all pairs of layers at the same distance.

    Attributes:
        distance: number of the later layer minus number of the earlier one.
        mean: mean over the pairs.
        n_pairs: number of pairs that have the figure.
    """

    distance: int
    mean: float
    n_pairs: int


def _of_levels(name: str) -> Mapping[str, Value]:
    def value(part: str) -> Value:
        def read(pair: LayerPair) -> float | None:
            level: Level | None = getattr(pair, part)
            return None if level is None else float(getattr(level, name))

        return read

    return {
        "Neurons": value("best"),
        "Control: rotated axes": value("rotated"),
        "Control: shuffled tokens": value("shuffled"),
    }


def _above(pair: LayerPair) -> float | None:
    return None if pair.rotated is None else pair.rotated.share_above


def _by_chance(pair: LayerPair) -> float | None:
    return None if pair.rotated is None else SHARE_BY_CHANCE


_CONTROLS = (
    "Rotated axes: random axes of the earlier layer's space replace its neurons. Shuffled tokens: "
    "the later layer's tokens are in a random order."
)
_BEST = "For each neuron of the later layer, take the best |ρ| to any neuron of the earlier layer. "
MEASURES: dict[str, Measure] = {
    "median": Measure(
        "Best |ρ|, median neuron",
        "best |ρ|, median neuron",
        "the median neuron's best |ρ|",
        ".2f",
        _BEST + "This is the median over neurons.",
        _CONTROLS,
        _of_levels("median"),
    ),
    "percentile_95": Measure(
        "Best |ρ|, 95th percentile",
        "best |ρ|, 95th percentile",
        "the 95th percentile of the neurons' best |ρ|",
        ".2f",
        _BEST + "This is the value that 5% of the neurons exceed.",
        _CONTROLS,
        _of_levels("percentile_95"),
    ),
    "above": Measure(
        "Share of neurons above the rotated control",
        "neurons above the rotated control",
        "the share of neurons above the rotated control",
        ".0%",
        "The share of the later layer's neurons whose best |ρ| in the earlier layer exceeds the "
        "95th percentile of the rotated control. By chance it is 5%.",
        "In the rotated control, random axes of the earlier layer's space replace its neurons. If "
        "there is nothing to find, 5% of neurons are above its 95th percentile.",
        {"Neurons": _above, "Control: by chance": _by_chance},
    ),
}
USUAL_MEASURE = "median"


def matrix(facts: CrossLayerFacts, value: Value) -> NDArray[np.float64]:
    """A figure for every pair of layers: (L, L), with later layers as rows and earlier ones as
    columns.

    NaN above and on the diagonal, and for missing figures.
    """
    place = {layer: k for k, layer in enumerate(facts.layers)}
    found = np.full((len(place), len(place)), np.nan)
    for pair in facts.pairs:
        known = value(pair)
        if known is not None:
            found[place[pair.later], place[pair.earlier]] = known
    return found


def by_distance(facts: CrossLayerFacts, value: Value) -> tuple[AtDistance, ...]:
    """The mean of a figure over all pairs of layers at each distance, smallest first."""
    found: dict[int, list[float]] = {}
    for pair in facts.pairs:
        known = value(pair)
        if known is not None:
            found.setdefault(pair.later - pair.earlier, []).append(known)
    return tuple(AtDistance(d, fmean(found[d]), len(found[d])) for d in sorted(found))
