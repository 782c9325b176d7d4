"""The definition of a pair of prompt sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

# Whether a text is short enough for every model that is to read it.
Fits = Callable[[str], bool]


@dataclass(frozen=True)
class Couple:
    """One prompt of each set, about the same thing.

    Attributes:
        group: the topic of the couple; couples of one group are never on both sides of a split.
    """

    positive: str
    negative: str
    group: str


@dataclass(frozen=True)
class Pair:
    """Two sets of prompts that are drawn on request.

    Attributes:
        name: the name that a user chooses it by.
        positive_name: description of the first set.
        negative_name: description of the second set.
        holds: one sentence about both sets, for help texts and reports.
        couples: yields distinct couples, possibly without end, in an order determined by the
            generator.
        caution: what the sets don't control for, in a sentence or two for reports; may be empty.
    """

    name: str
    positive_name: str
    negative_name: str
    holds: str
    couples: Callable[[Random], Iterator[Couple]]
    caution: str = ""
