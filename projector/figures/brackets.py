"""Brackets that mark groups in an order of neurons."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Members of a group in its longest stretch, and neurons of the stretch that are members, at least.
_LEAST_TOGETHER, _LEAST_OF_IT = 0.5, 0.6
# Neurons of others that a stretch may hold in a row.
_MOST_BETWEEN = 2


@dataclass(frozen=True)
class Bracket:
    """A range of an order that a group occupies.

    Attributes:
        first, last: its first and last row of cells.
        text: name of the group.
        group: index of the group.
        rank: its priority; the lowest is shown first.
    """

    first: int
    last: int
    text: str
    group: int
    rank: int = 0


def brackets_of(
    order: NDArray[np.int64],
    labels: NDArray[np.int64],
    names: Sequence[str],
    ranked: Iterable[int],
    n_per_cell: int = 1,
    most: int = 24,
) -> tuple[Bracket, ...]:
    """Find the groups that are contiguous in an order and don't overlap earlier ones.

    Args:
        order: (N,), neurons in drawing order.
        labels: (all,), the group of each neuron, −1 for no group.
        names: names of the groups.
        ranked: indices of groups, the most important first.
        n_per_cell: number of neurons per row.
    """
    found: list[Bracket] = []
    own = labels[order]
    for rank, group in enumerate(ranked):
        places = np.flatnonzero(own == group)
        if not len(places):
            continue
        cuts = np.flatnonzero(np.diff(places) > _MOST_BETWEEN + 1) + 1
        stretch = max(np.split(places, cuts), key=len)
        first, last = int(stretch[0]), int(stretch[-1])
        together = len(stretch) / len(places)
        if together < _LEAST_TOGETHER or len(stretch) / (last - first + 1) < _LEAST_OF_IT:
            continue
        bracket = Bracket(first // n_per_cell, last // n_per_cell, names[group], int(group), rank)
        if all(bracket.last < each.first or bracket.first > each.last for each in found):
            found.append(bracket)
        if len(found) >= most:
            break
    return tuple(sorted(found, key=lambda each: each.first))


def named_brackets(brackets: Iterable[Bracket], least_apart: float) -> tuple[Bracket, ...]:
    """Choose the brackets with names that fit next to the picture: of two that would overlap, the
    one with the lower rank.

    Args:
        least_apart: smallest number of rows between the middles of two names.
    """
    found: list[Bracket] = []
    for each in sorted(brackets, key=lambda each: each.rank):
        middle = each.first + each.last
        if all(abs(middle - known.first - known.last) >= 2 * least_apart for known in found):
            found.append(each)
    return tuple(found)
