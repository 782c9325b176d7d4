"""What colours and sizes of a map mean, what its points tell, and its poles as it lists them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dashboard.drawing import palette
from dashboard.drawing.text import number
from pruning.poles.poles import Control, Pole, Poles

# More rows than that nobody reads; the Poles page has them all.
_MOST_LISTED = 200
DISTINCT, WEAK, UNKNOWN = "distinct", "weak", ""


@dataclass(frozen=True)
class Hover:
    """What a point tells when it is pointed at: a number, or one of some names."""

    label: str
    values: NDArray[np.floating]
    names: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Legend:
    """What colours and sizes mean: groups with the index of their colour, if any, or a scale."""

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
        number: what it is called everywhere.
        label: what it fires on; its number where that is unknown.
        title: what a neuron of it tells.
        size: neurons in it.
        rho: mean ρ inside, None where unknown.
        state: ``distinct``, ``weak``, or empty where that is unknown.
        color: index of its colour in :func:`dashboard.drawing.palette.groups`.
        shared: whether other poles have that colour too.
        note: more of it, in a sentence or two.
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
        items: as they are listed.
        title, note, more: above the list, below that, and under it.
    """

    membership: NDArray[np.int16]
    items: tuple[Group, ...]
    title: str
    note: str
    more: str


def colors_of(poles: Poles) -> NDArray[np.uint8]:
    """The index of each pole's colour, by its number: (n_poles,) uint8.

    The first of the list have colours of their own; the others share one.
    """
    found = np.zeros(len(poles.poles), dtype=np.uint8)
    found[list(poles.distinct_first)] = palette.group_index(np.arange(len(poles.poles)))
    return found


def groups_of(poles: Poles, names: Sequence[str] = ()) -> Groups:
    """What a map shows of poles.

    Args:
        names: of each pole by its number, empty where unknown.
    """
    order = list(poles.distinct_first)
    shown = order[:_MOST_LISTED]
    colors = colors_of(poles)
    place = np.full(len(order) + 1, -1, dtype=np.int16)
    place[shown] = np.arange(len(shown))
    items = tuple(_group(poles, k, names[k] if k < len(names) else "", colors[k]) for k in shown)
    n_more = len(order) - len(shown)
    return Groups(
        # Of −1, no pole, the last.
        place[poles.labels.numpy()],
        items,
        f"{len(order):,} pole{'' if len(order) == 1 else 's'}",
        _note(poles),
        f"and {n_more:,} more, on the Poles page" if n_more else "",
    )


def state_of(pole: Pole) -> str:
    """``distinct``, ``weak``, or empty where that is unknown."""
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
    """How many are distinct, beside the controls."""
    if poles.n_distinct is None:
        return ""
    found = f"{poles.n_distinct} distinct, {poles.n_beyond_spectrum} beyond the spectrum"
    controls = poles.controls
    if controls is None:
        return f"{found}."
    return (
        f"{found}. By chance: {_count(controls.shuffled)} distinct in shuffled ρ, "
        f"{_count(controls.same_spectrum)} with the same spectrum."
    )


def _count(control: Control) -> str:
    return "–" if control.n_distinct is None else f"{control.n_distinct:.1f}"
