"""How faithful a map is: the figures, how they are measured, and their descriptions.

A figure is one registered record, which commands, JSON, pictures and pages read. Heavy packages are
imported only to measure a map, so that saved figures can be shown without them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from string import Formatter
from typing import TYPE_CHECKING, Any

from projector.layouts.registry import OBJECTIVES
from projector.storage.entries import Entry

if TYPE_CHECKING:
    from torch import Tensor

    from projector.layouts.settings import Layout
    from projector.statistics.correlations import Correlation, Target

N_NEIGHBOURS = 10
_SENTENCE_END = re.compile(r"(?<=\.) ")
NOT_MEASURED = "the version that made this map did not measure it"


@dataclass(frozen=True)
class Faithfulness:
    """How faithful a map is to the correlations.

    Attributes:
        values: figure → its number, or None.
        reasons: figure → reason why it is None.
    """

    values: Mapping[str, float | None]
    reasons: Mapping[str, str]

    def __getattr__(self, name: str) -> float | None:
        # Of figures alone, so that a new one needs no line here.
        if name in FIGURES:
            return self.values.get(name)
        raise AttributeError(f"there is no figure '{name}'")

    def as_dict(self) -> dict[str, Any]:
        """Convert to JSON values."""
        return {**self.values, "reasons": dict(self.reasons)}

    @classmethod
    def from_entry(cls, entry: Entry) -> Faithfulness:
        """Read saved figures; a figure that the file lacks is None, with a reason.

        Raises:
            Wrong: if a figure isn't a number.
        """
        reasons = entry.texts_by_name("reasons")
        # Figures that are not registered here are kept as they are.
        numbers = [n for n, v in entry.value.items() if type(v) in (int, float) or n in reasons]
        values = {name: entry.maybe_number(name) for name in (*FIGURES, *numbers)}
        lacking = {name: NOT_MEASURED for name in FIGURES if values[name] is None}
        return cls(values, lacking | reasons)


@dataclass(frozen=True)
class PlacementFigures:
    """The figures of one map in a layout.

    Attributes:
        trust: its measures of faithfulness.
        own: figures that only its objective has, by name; see
            :attr:`projector.layouts.objective.Objective.own`.
    """

    trust: Faithfulness
    own: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Convert to JSON values."""
        return {**self.trust.as_dict(), **{name: dict(each) for name, each in self.own.items()}}

    @classmethod
    def from_entry(cls, entry: Entry) -> PlacementFigures:
        """Read from JSON; raises ``Wrong`` if a figure isn't a number."""
        registered = {name for record in OBJECTIVES.values() for name in record.own}
        found = {n: entry.numbers_by_name(n, is_known=n in registered) for n in entry}
        return cls(Faithfulness.from_entry(entry), {n: each for n, each in found.items() if each})


@dataclass(frozen=True)
class Measured:
    """A map to be measured, with its n defined neurons only.

    Attributes:
        points: (n, d) positions.
        target: target distances between them.
        layout: how the positions were found.
        on_map: share of nearest neighbours on which the maps of both halves of the corpus agree; or
            the reason why it is unknown.
        by_rho: the same for nearest neighbours by ρ.
    """

    points: Tensor
    target: Target
    layout: Layout
    on_map: float | str
    by_rho: float | str

    @property
    def n(self) -> int:
        return len(self.points)

    @cached_property
    def stress(self) -> tuple[float | str, float | str]:
        """Stress and stress-1, or the reason why they are undefined."""
        from projector.layouts.costs import stress_figures

        if not self.n:
            return "no neuron is defined", "no neuron is defined"
        stress, stress_1 = stress_figures(self.points, self.target, p=self.layout.p)
        return stress, "all positions coincide" if stress_1 is None else stress_1

    @property
    def too_few(self) -> str | None:
        """The reason why neighbours have no meaning; None if they do."""
        if self.n >= N_NEIGHBOURS + 2:
            return None
        return f"{self.n} defined neurons are too few for {N_NEIGHBOURS} neighbours"


@dataclass(frozen=True)
class Figure:
    """A measure of faithfulness: a number that a map is judged by.

    An interface omits a figure without a text for it. In the texts, ``{name}`` is the figure with
    that name, multiplied by its factor, and ``{dim}`` is the map's dimension; a format may follow,
    as in ``{stress:.3f}``.

    Attributes:
        name: its key in every file.
        measure: returns a number, or the reason why there is none.
        better: ``low`` or ``high``; empty if neither is better.
        needs: a property without which the figure has no meaning; see
            :attr:`projector.layouts.objective.Objective.lacks`.
        factor: factor of the displayed number.
        pattern: format of the displayed number.
        column: title of its column in the terminal's table.
        legend: explanation of the column.
        sentence: text under a picture.
        strip: title of its strip in the picture of trust.
        title: its name on a page.
        value: format on a page; empty to use ``pattern``.
        meaning: explanation on a page.
        place: its rank among the figures in sentences and on pages.
    """

    name: str
    measure: Callable[[Measured], float | str]
    better: str = ""
    needs: tuple[str, ...] = ()
    factor: float = 1.0
    pattern: str = "{:.3f}"
    column: str = ""
    legend: str = ""
    sentence: str = ""
    strip: str = ""
    title: str = ""
    value: str = ""
    meaning: str = ""
    place: int = 100

    def number(self, figures: Mapping[str, Any]) -> float | None:
        """The displayed number of a map; None if it is unknown."""
        found = figures.get(self.name)
        return None if found is None else float(found * self.factor)

    def reason(self, figures: Mapping[str, Any]) -> str:
        """The reason why the number is unknown."""
        return str((figures.get("reasons") or {}).get(self.name, NOT_MEASURED))

    def lacking(self, objective: str) -> str | None:
        """The reason why the figure has no meaning for an objective's maps; None if it has."""
        lacks = OBJECTIVES[objective].lacks if objective in OBJECTIVES else {}
        return next((lacks[need] for need in self.needs if need in lacks), None)


FIGURES: dict[str, Figure] = {}


def register_figure(figure: Figure) -> None:
    """Register a figure for every measurement, table, picture and page."""
    FIGURES[figure.name] = figure


def in_words(words: str, figures: Mapping[str, Any], **more: Any) -> str:
    """Format a text of a :class:`Figure` with the numbers of a map.

    Sentences with an unknown number are left out.
    """
    return " ".join(
        filter(None, (_filled(each, figures, more) for each in _SENTENCE_END.split(words)))
    )


def _filled(words: str, figures: Mapping[str, Any], more: Mapping[str, Any]) -> str:
    numbers = dict(more)
    for _, name, _, _ in Formatter().parse(words):
        if name and name not in numbers:
            value = figures.get(name)
            if value is None:
                return ""
            numbers[name] = value * FIGURES[name].factor
    return words.format(**numbers)


def told() -> list[Figure]:
    """All figures, in the order of sentences and pages."""
    return sorted(FIGURES.values(), key=lambda figure: figure.place)


def measure(
    positions: Tensor,
    correlation: Tensor | Correlation | None,
    layout: Layout,
    half_correlations: Sequence[Tensor | Correlation] | None = None,
    half_positions: Sequence[Tensor] | None = None,
    *,
    no_halves: str = "the corpus was not fitted in halves",
) -> Faithfulness:
    """Compare a map with the correlations it was made from.

    Args:
        positions: (N, d), NaN for undefined neurons.
        correlation: correlations of the N neurons; None if they weren't kept.
        layout: how the positions were found.
        half_correlations: correlations in the first and in the second half of the corpus.
        half_positions: positions fitted to each half.
        no_halves: the reason if either is None.
    """
    if correlation is None:
        return Faithfulness(
            dict.fromkeys(FIGURES), dict.fromkeys(FIGURES, "correlations were not kept")
        )
    from projector.statistics.correlations import as_correlation

    form = as_correlation(correlation)
    alive = positions.isfinite().all(dim=1) & form.is_defined
    halves = [as_correlation(each) for each in half_correlations or ()]
    agreed = _agreement(alive, layout, halves, half_positions or (), no_halves)
    target = form.target(layout.absolute, alive)
    measured = Measured(positions[alive], target, layout, *agreed)
    values: dict[str, float | None] = {}
    reasons: dict[str, str] = {}
    for name, figure in FIGURES.items():
        found = figure.lacking(layout.objective) or figure.measure(measured)
        if isinstance(found, str):
            values[name], reasons[name] = None, found
        else:
            # A tensor or a NumPy number too, which JSON has no place for.
            values[name] = float(found)
    return Faithfulness(values, reasons)


def _agreement(
    alive: Tensor,
    layout: Layout,
    correlations: Sequence[Correlation],
    positions: Sequence[Tensor],
    no_halves: str,
) -> tuple[float | str, float | str]:
    """The neighbours on which the two halves agree: on their maps, and by ρ."""
    from projector.layouts.costs import nearest_by_target, nearest_on_map, overlap_of

    if not correlations:
        return no_halves, no_halves
    both = alive.clone()
    for rho in correlations:
        both &= rho.is_defined
    for points in positions:
        both &= points.isfinite().all(dim=1)
    if int(both.sum()) < N_NEIGHBOURS + 2:
        few = "too few neurons are defined in both halves of the corpus"
        return few if positions else no_halves, few
    first, second = (
        nearest_by_target(rho.target(layout.absolute, both), N_NEIGHBOURS) for rho in correlations
    )
    by_rho = overlap_of(first, second)
    if not positions:
        return no_halves, by_rho
    first, second = (nearest_on_map(points[both], layout.p, N_NEIGHBOURS) for points in positions)
    return overlap_of(first, second), by_rho


def _rank_correlation(map: Measured) -> float | str:
    from projector.layouts.costs import rank_correlation

    found = rank_correlation(map.points, map.target, map.layout.p)
    return "all distances are equal" if found is None else found


def _neighbour_overlap(map: Measured) -> float | str:
    from projector.layouts.costs import nearest_by_target, nearest_on_map, overlap_of

    if map.too_few:
        return map.too_few
    near = nearest_on_map(map.points, map.layout.p, N_NEIGHBOURS)
    return overlap_of(near, nearest_by_target(map.target, N_NEIGHBOURS))


for _figure in (
    Figure(
        "stress",
        lambda map: map.stress[0],
        better="low",
        needs=("distances",),
        pattern="{:.4f}",
        column="stress",
        sentence="stress {stress:.3f}",
        strip="stress: mean over pairs of (distance − (1 − ρ))²",
        title="Stress",
        value="{stress:.3f}",
        meaning="The mean squared difference between distance and 1 − ρ. An exact map has 0, "
        "which {dim} dimensions rarely allow.",
        place=20,
    ),
    Figure(
        "stress_1",
        lambda map: map.stress[1],
        better="low",
        needs=("distances",),
        column="stress-1",
        sentence="stress-1 {stress_1:.2f}",
        place=30,
    ),
    Figure(
        "rank_correlation",
        _rank_correlation,
        better="high",
        column="rank ρ",
        legend="rank correlation of distance on the map and 1 − ρ",
        sentence="rank correlation {rank_correlation:.2f}",
        place=40,
    ),
    Figure(
        "neighbour_overlap",
        _neighbour_overlap,
        better="high",
        factor=N_NEIGHBOURS,
        pattern="{:.1f}",
        column="kept",
        legend=f"how many of a neuron's {N_NEIGHBOURS} nearest by ρ are among its "
        f"{N_NEIGHBOURS} nearest on the map",
        strip=f"how many of {N_NEIGHBOURS} nearest neighbours by ρ the map keeps",
        title="Neighbours kept",
        value=f"{{neighbour_overlap:.1f}} of {N_NEIGHBOURS}",
        meaning=f"How many of a neuron's {N_NEIGHBOURS} nearest by correlation are among its "
        f"{N_NEIGHBOURS} nearest on the map. By chance it would be {{chance_overlap:.1f}}.",
        place=10,
    ),
    Figure(
        "chance_overlap",
        lambda map: map.too_few or N_NEIGHBOURS / (map.n - 1),
        factor=N_NEIGHBOURS,
        pattern="{:.1f}",
        column="chance",
        legend="the same for random positions",
    ),
    Figure(
        "stability",
        lambda map: map.too_few or map.on_map,
        better="high",
        factor=N_NEIGHBOURS,
        pattern="{:.1f}",
        column="stable",
        legend=f"how many of its {N_NEIGHBOURS} nearest on the map two halves of the corpus "
        "agree on",
        sentence="two halves of the corpus agree on {stability:.1f} of "
        f"{N_NEIGHBOURS} neighbours",
        title="Stability",
        value=f"{{stability:.1f}} of {N_NEIGHBOURS}",
        meaning=f"How many of a neuron's {N_NEIGHBOURS} nearest two fits agree on, each of one "
        "half of the corpus.",
        place=50,
    ),
    Figure(
        "correlation_stability",
        lambda map: map.too_few or map.by_rho,
        better="high",
        factor=N_NEIGHBOURS,
        pattern="{:.1f}",
    ),
):
    register_figure(_figure)
