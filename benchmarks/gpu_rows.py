"""The figures of ``python -m benchmarks.gpu``, and the sizes at which they are measured."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Sizes:
    """The sizes of the measurements.

    Attributes:
        n_copied: float32 numbers of a copy.
        n_matrix: rows and columns of the product whose rate counts as the device's.
        stored: neurons of a map, and maps at once, of the kernel that reads correlations.
        n_free: neurons, and tokens, of the kernel that computes them.
        repeats: of every measurement but the fit.
        layers, hidden, neurons, heads, groups, vocabulary: the model's shape.
        n_tokens: of a fit.
        fits: at most so many of them.
    """

    n_copied: int
    n_matrix: int
    stored: tuple[tuple[int, int], ...]
    n_free: int
    repeats: int
    layers: int
    hidden: int
    neurons: int
    heads: int
    groups: int
    vocabulary: int
    n_tokens: int
    fits: int


FULL = Sizes(
    n_copied=1 << 28,
    n_matrix=8_192,
    stored=((4_864, 24), (18_944, 1)),
    n_free=18_944,
    repeats=20,
    layers=24,
    hidden=896,
    neurons=4_864,
    heads=14,
    groups=2,
    vocabulary=151_936,
    n_tokens=200_000,
    fits=5,
)
TOY = Sizes(
    n_copied=1 << 16,
    n_matrix=64,
    stored=((48, 2), (72, 1)),
    n_free=72,
    repeats=2,
    layers=2,
    hidden=16,
    neurons=24,
    heads=2,
    groups=1,
    vocabulary=4_096,
    n_tokens=400,
    fits=1,
)


@dataclass(frozen=True)
class Row:
    """One figure: all its values, or the reason why there are none.

    Attributes:
        target: least (or most, where ``is_least`` is false) that the median is to be.
        unmeasured: the reason, where ``values`` is empty.
    """

    part: str
    what: str
    size: str
    unit: str
    values: tuple[float, ...] = ()
    target: float | None = None
    is_least: bool = True
    unmeasured: str | None = None
    note: str = ""

    @property
    def is_met(self) -> bool | None:
        """Whether the median reaches the target; None without either."""
        if self.target is None or not self.values:
            return None
        median = statistics.median(self.values)
        return median >= self.target if self.is_least else median <= self.target

    def measured(self, values: Sequence[float], note: str = "") -> Row:
        """The same row with values."""
        return replace(self, values=tuple(values), unmeasured=None, note=note)

    def as_json(self) -> dict[str, Any]:
        """Plain values for JSON, with the median, the minimum and the maximum."""
        values = list(self.values)
        return {
            "part": self.part,
            "what": self.what,
            "size": self.size,
            "unit": self.unit,
            "median": statistics.median(values) if values else None,
            "least": min(values, default=None),
            "most": max(values, default=None),
            "values": values,
            "target": self.target,
            "target_is": None if self.target is None else "least" if self.is_least else "most",
            "is_met": self.is_met,
            "unmeasured": self.unmeasured,
            "note": self.note,
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Row:
        """Read the result of :meth:`as_json`."""
        return cls(
            content["part"],
            content["what"],
            content["size"],
            content["unit"],
            tuple(content["values"]),
            content["target"],
            content["target_is"] != "most",
            content["unmeasured"],
            content["note"],
        )


class Unmeasurable(Exception):
    """Raised with the reason why a part has no figures here."""


@dataclass(frozen=True)
class Part:
    """A part of the command.

    Attributes:
        needs_s: it is skipped if less time is left.
        plan: its rows, without values.
        measure: yields rows with values, and gets the time (``time.monotonic``) until which it may
            run.
    """

    name: str
    needs_s: float
    plan: Callable[[Sizes], list[Row]]
    measure: Callable[[Sizes, float], Iterator[Row]]
