"""Colours and sizes for the points of a map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dashboard.drawing import palette
from dashboard.drawing.encoding import bounds, to_bytes, to_signed
from dashboard.drawing.legend import Hover, Legend, colors_of
from dashboard.drawing.text import number
from pruning.poles.poles import Poles

MEASURES = {
    "mean": ("Mean activation", "the mean over the corpus"),
    "spread": ("Variance", "the variance over the corpus, on a logarithmic scale"),
    "importance": ("Importance", "root mean square activation × norm of the output weights"),
}
COLORS = {
    "pole": "Pole",
    **{name: label for name, (label, _) in MEASURES.items()},
    "dead": "Dead or not finite",
    "none": "None",
}
SIZES = {"none": "All alike", **{name: label for name, (label, _) in MEASURES.items()}}
_PLAIN_SIZE = 110


@dataclass(frozen=True, eq=False)
class Coloring:
    """Colours of N neurons, with their meaning.

    Attributes:
        values: (N,) uint8, indices of a palette.
        colors, colors_dark: (256, 3) uint8, the palette on a light and on a dark page; None for the
            palette of groups.
    """

    values: NDArray[np.uint8]
    legend: Legend
    colors: NDArray[np.uint8] | None = None
    colors_dark: NDArray[np.uint8] | None = None


def color_by_pole(poles: Poles) -> Coloring:
    """The first poles in their own colours, the rest in grey; see :mod:`.legend`."""
    labels = poles.labels.numpy()
    # −1, no pole, takes the last colour.
    colors = np.append(colors_of(poles), np.uint8(palette.NO_GROUP))
    items: list[tuple[str, int | None]] = []
    n_others = len(poles.poles) - palette.N_GROUPS
    if n_others > 0:
        items.append((f"the other {n_others:,} poles", palette.OTHER_GROUP))
    items.append(("in no pole", palette.NO_GROUP))
    return Coloring(colors[labels], Legend("", tuple(items)))


def color_by_measure(name: str, values: NDArray[np.floating]) -> Coloring:
    """A number as shades of colour; values beyond the first and last percentile share a shade.

    A signed number has two hues, with equal ranges on both sides of 0.
    """
    shown, least, most = _scaled(name, values)
    is_signed = name != "spread" and bool((values[np.isfinite(values)] < 0).any())
    if is_signed:
        most = max(abs(least), abs(most)) or 1.0
        least = -most
    low, high = (10**least, 10**most) if name == "spread" else (least, most)
    legend = Legend(MEASURES[name][0], None, number(low), number(high))
    if is_signed:
        # 128 is zero in that table.
        painted = (to_signed(shown, most).astype(np.int16) + 128).astype(np.uint8)
        return Coloring(painted, legend, palette.diverging(), palette.diverging())
    return Coloring(
        to_bytes(shown, least, most), legend, palette.sequential(), palette.sequential(dark=True)
    )


def color_by_state(n_neurons: int, dead: list[int], nonfinite: list[int]) -> Coloring:
    """Colour the neurons that vary. Dead neurons have no position, so the map doesn't show them."""
    values = np.full(n_neurons, 2, dtype=np.uint8)
    values[dead + nonfinite] = palette.NO_GROUP
    items = (
        (f"{n_neurons - len(dead) - len(nonfinite):,} alive", 2),
        (f"{len(dead):,} dead, {len(nonfinite):,} not finite: no position", palette.NO_GROUP),
    )
    return Coloring(values, Legend("Neurons", items))


def color_alike(n_neurons: int) -> Coloring:
    """One colour for all neurons."""
    return Coloring(
        np.full(n_neurons, 2, dtype=np.uint8),
        Legend("", ((f"{n_neurons:,} neurons", 2),)),
    )


KEPT, REMOVED = 2, 1


def group_values(n_neurons: int, gone: Sequence[int]) -> NDArray[np.uint8]:
    """Two colours of :func:`dashboard.drawing.palette.groups`, for kept and for removed neurons."""
    values = np.full(n_neurons, KEPT, dtype=np.uint8)
    values[list(gone)] = REMOVED
    return values


def sizes_by(name: str, values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Sizes of points, from small to large."""
    shown, least, most = _scaled(name, values)
    return np.maximum(to_bytes(shown, least, most), 12)


def plain_sizes(n_neurons: int) -> NDArray[np.uint8]:
    """Equal sizes."""
    return np.full(n_neurons, _PLAIN_SIZE, dtype=np.uint8)


def size_words(name: str) -> str:
    """The legend's text on sizes; empty if all are equal."""
    return f"larger: higher {MEASURES[name][0].lower()}" if name in MEASURES else ""


def hover_of(measures: dict[str, NDArray[np.floating]]) -> tuple[Hover, ...]:
    """The hover text of a point's measures."""
    return tuple(Hover(MEASURES[name][0].lower(), values) for name, values in measures.items())


def _scaled(name: str, values: NDArray[np.floating]) -> tuple[NDArray[np.floating], float, float]:
    if name != "spread":
        return values, *bounds(values)
    # A neuron that never varies has no logarithm.
    shown = np.log10(np.where(values > 0, values, np.nan))
    return shown, *bounds(shown)
