"""What a pair of prompt sets is."""

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
        group: what the couple is about; couples of one group never lie on both sides of a split.
    """

    positive: str
    negative: str
    group: str


@dataclass(frozen=True)
class Pair:
    """Two sets of prompts that are drawn when they are asked for.

    Attributes:
        name: as a user names it.
        positive_name: what the first set holds.
        negative_name: what the second set holds.
        holds: one sentence on both sets, for help texts and reports.
        couples: yields couples without end or until there are no more, in an order that the
            generator decides; no couple comes twice.
        caution: what the sets do not control, a sentence or two for reports; empty for nothing.
    """

    name: str
    positive_name: str
    negative_name: str
    holds: str
    couples: Callable[[Random], Iterator[Couple]]
    caution: str = ""
