"""A map's legend of colours and sizes, its hover texts, and its list of poles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dashboard.drawing import palette
from dashboard.drawing.text import number
from pruning.poles.poles import Pole, Poles, counts_words

# Nobody reads more rows; the Poles page lists all poles.
_MOST_LISTED = 200
DISTINCT, WEAK, UNKNOWN = "distinct", "weak", ""


@dataclass(frozen=True)
class Hover:
    """The text of a point under the pointer: a number, or one of several names."""

    label: str
    values: NDArray[np.floating]
    names: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Legend:
    """The meaning of colours and sizes: groups with the index of their colour, or a scale."""

    label: str
    items: tuple[tuple[str, int | None], ...] | None = None
    low: str = ""
    high: str = ""
    signed: bool = False
    size: str = ""


@dataclass(frozen=True)
class Group:
    """One pole on a map.

    Attributes:
        number: its number on every page.
        label: what it fires on; its number if that is unknown.
        title: hover text of its neurons.
        size: number of neurons.
        rho: mean ρ inside, None if unknown.
        state: ``distinct``, ``weak``, or empty if that is unknown.
        color: index of its colour in :func:`dashboard.drawing.palette.groups`.
        shared: whether other poles share that colour.
        note: further facts, in a sentence or two.
    """

    number: int
    label: str
    title: str
    size: int
    rho: float | None
    state: str
    color: int
    shared: bool
    note: str


@dataclass(frozen=True, eq=False)
class Groups:
    """The poles of one map.

    Attributes:
        membership: (N,) int16, the place in ``items`` of each neuron's pole; −1 for none.
        items: the poles in the order of the list.
        title, note, more: texts above the list, below its title, and under the list.
    """

    membership: NDArray[np.int16]
    items: tuple[Group, ...]
    title: str
    note: str
    more: str


def colors_of(poles: Poles) -> NDArray[np.uint8]:
    """The index of each pole's colour, by its number: (n_poles,) uint8.

    The first poles of the list have their own colours; the rest share one.
    """
    found = np.zeros(len(poles.poles), dtype=np.uint8)
    found[list(poles.distinct_first)] = palette.group_index(np.arange(len(poles.poles)))
    return found


def groups_of(poles: Poles, names: Sequence[str] = ()) -> Groups:
    """The poles that a map shows.

    Args:
        names: name of each pole by its number, empty if unknown.
    """
    order = list(poles.distinct_first)
    shown = order[:_MOST_LISTED]
    colors = colors_of(poles)
    place = np.full(len(order) + 1, -1, dtype=np.int16)
    place[shown] = np.arange(len(shown))
    items = tuple(_group(poles, k, names[k] if k < len(names) else "", colors[k]) for k in shown)
    n_more = len(order) - len(shown)
    return Groups(
        # −1, no pole, takes the last colour.
        place[poles.labels.numpy()],
        items,
        f"{len(order):,} pole{'' if len(order) == 1 else 's'}",
        _note(poles),
        f"and {n_more:,} more, on the Poles page" if n_more else "",
    )


def state_of(pole: Pole) -> str:
    """``distinct``, ``weak``, or empty if that is unknown."""
    return UNKNOWN if pole.distinct is None else DISTINCT if pole.distinct else WEAK


def _group(poles: Poles, k: int, name: str, color: int) -> Group:
    pole = poles.poles[k]
    state = state_of(pole)
    label = name or pole.label or ""
    title = ", ".join(filter(None, (f"pole {k}", label, state)))
    notes = [f"Pole {k}: {pole.size:,} neurons."]
    if pole.between_rho is not None:
        notes.append(f"Mean ρ to the nearest other pole: {number(pole.between_rho, '.2f')}.")
    if pole.opposite is not None and pole.opposite_rho is not None:
        notes.append(f"Opposite: pole {pole.opposite}, ρ {number(pole.opposite_rho, '.2f')}.")
    if pole.axis is not None:
        notes.append(f"One end of an axis; pole {pole.axis} is the other end.")
    if pole.beyond_spectrum:
        notes.append("Beyond the spectrum: one dominant axis alone would not produce it.")
    return Group(
        k,
        label or f"pole {k}",
        title,
        pole.size,
        pole.within_rho,
        state,
        int(color),
        int(color) == palette.OTHER_GROUP,
        " ".join(notes),
    )


def _note(poles: Poles) -> str:
    """The number of poles that each control confirms, with the control's own."""
    words = counts_words([poles])
    return f"{words}." if words else ""
