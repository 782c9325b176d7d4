"""What the points of a map can be coloured and sized by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dashboard.drawing import palette
from dashboard.drawing.encoding import bounds, to_bytes
from dashboard.drawing.legend import Hover, Legend
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
# Of what has a colour that no other one has.
_MOST_NAMED = palette.N_GROUPS
_PLAIN_SIZE = 110


@dataclass(frozen=True, eq=False)
class Coloring:
    """Colours of N neurons: (N,) uint8 into a (256, 3) palette, and what they mean."""

    values: NDArray[np.uint8]
    colors: NDArray[np.uint8]
    legend: Legend


def color_by_pole(poles: Poles) -> Coloring:
    """Poles in colours of their own, the rest grey."""
    labels = poles.labels.numpy()
    items: list[tuple[str, int | None]] = [
        (f"pole {k} ({pole.size})", int(palette.group_index(np.array([k]))[0]))
        for k, pole in enumerate(poles.poles[:_MOST_NAMED])
    ]
    if len(poles.poles) > _MOST_NAMED:
        items.append((f"and {len(poles.poles) - _MOST_NAMED} more, in these colours again", None))
    items.append(("in no pole", palette.NO_GROUP))
    return Coloring(
        palette.group_index(labels),
        palette.groups(),
        Legend("Pole", tuple(items)),
    )


def color_by_measure(name: str, values: NDArray[np.floating]) -> Coloring:
    """A number in shades; extremes beyond the outermost hundredth share a shade."""
    shown, least, most = _scaled(name, values)
    low, high = (10**least, 10**most) if name == "spread" else (least, most)
    return Coloring(
        to_bytes(shown, least, most),
        palette.sequential(),
        Legend(MEASURES[name][0], None, f"{low:.2g}", f"{high:.2g}"),
    )


def color_by_state(n_neurons: int, dead: list[int], nonfinite: list[int]) -> Coloring:
    """Which neurons never vary. They have no position, so that the map shows the others."""
    values = np.full(n_neurons, 2, dtype=np.uint8)
    values[dead + nonfinite] = palette.NO_GROUP
    items = (
        (f"{n_neurons - len(dead) - len(nonfinite):,} alive", 2),
        (f"{len(dead):,} dead, {len(nonfinite):,} not finite: without a place", palette.NO_GROUP),
    )
    return Coloring(values, palette.groups(), Legend("Neurons", items))


def color_alike(n_neurons: int) -> Coloring:
    """One colour."""
    return Coloring(
        np.full(n_neurons, 2, dtype=np.uint8),
        palette.groups(),
        Legend("", ((f"{n_neurons:,} neurons", 2),)),
    )


STAYS, GOES = 2, 5


def group_values(n_neurons: int, gone: Sequence[int]) -> NDArray[np.uint8]:
    """Two colours of :func:`dashboard.drawing.palette.groups`: who stays, and who goes."""
    values = np.full(n_neurons, STAYS, dtype=np.uint8)
    values[list(gone)] = GOES
    return values


def sizes_by(name: str, values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Sizes of points, from small to large."""
    shown, least, most = _scaled(name, values)
    return np.maximum(to_bytes(shown, least, most), 12)


def plain_sizes(n_neurons: int) -> NDArray[np.uint8]:
    """All alike."""
    return np.full(n_neurons, _PLAIN_SIZE, dtype=np.uint8)


def hover_of(poles: Poles | None, measures: dict[str, NDArray[np.floating]]) -> tuple[Hover, ...]:
    """What a point tells: its pole and its measures."""
    found = []
    if poles is not None:
        names = ("in no pole", *(f"pole {k}" for k in range(len(poles.poles))))
        found.append(Hover("", poles.labels.numpy().astype(np.float32) + 1, names))
    found += [Hover(MEASURES[name][0].lower(), values) for name, values in measures.items()]
    return tuple(found)


def _scaled(name: str, values: NDArray[np.floating]) -> tuple[NDArray[np.floating], float, float]:
    if name != "spread":
        return values, *bounds(values)
    # A neuron that never varies has no logarithm.
    shown = np.log10(np.where(values > 0, values, np.nan))
    return shown, *bounds(shown)
