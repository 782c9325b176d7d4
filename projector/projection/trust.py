"""The figures of trust of a map, as they are saved and shown."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from projector.storage.entries import Entry

_NOT_MEASURED = "it was not measured yet when this map was made"


@dataclass(frozen=True)
class Faithfulness:
    """What a map keeps of the correlations.

    A figure that can't be given is None, and ``reasons`` says why.

    Attributes:
        stress: mean over pairs of (distance − (1 − ρ))².
        stress_1: Kruskal's stress-1.
        rank_correlation: Spearman's, between distance and 1 − ρ over pairs.
        neighbour_overlap: share of a neuron's 10 nearest by ρ that are among its 10 nearest on the
            map, mean over neurons.
        chance_overlap: what ``neighbour_overlap`` is for random positions.
        stability: share of the 10 nearest on the map that two fits, each on one half of the corpus,
            agree on.
        correlation_stability: the same of the 10 nearest by ρ: what the corpus itself allows.
        reasons: figure → why it is None.
    """

    stress: float | None
    stress_1: float | None
    rank_correlation: float | None
    neighbour_overlap: float | None
    chance_overlap: float | None
    stability: float | None
    correlation_stability: float | None
    reasons: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        """The figures for JSON."""
        found = {name: getattr(self, name) for name in FIGURES}
        return {**found, "reasons": dict(self.reasons)}

    @classmethod
    def from_entry(cls, entry: Entry) -> Faithfulness:
        """The figures as they were saved; one that the file lacks is None, with that as its reason.

        Raises:
            Wrong: if a figure is not a number.
        """
        values = {name: entry.maybe_number(name) for name in FIGURES}
        reasons = entry.texts_by_name("reasons")
        for name, value in values.items():
            if value is None:
                reasons.setdefault(name, _NOT_MEASURED)
        return cls(**values, reasons=reasons)


# By name, in the order in which they are told.
FIGURES = tuple(field.name for field in fields(Faithfulness) if field.name != "reasons")


@dataclass(frozen=True)
class ArrangementCosts:
    """What a linear map was improved from, as sums of |πᵢ − πⱼ|·(1 + ρᵢⱼ)/2 over pairs.

    Attributes:
        spectral, leaf: of the orders that it began with.
        final: of its own order.
        random: mean of random orders.
    """

    spectral: float
    leaf: float
    final: float
    random: float


@dataclass(frozen=True)
class PlacementFigures:
    """How far one map of a layout can be trusted."""

    trust: Faithfulness
    arrangement_cost: ArrangementCosts | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        found = self.trust.as_dict()
        costs = self.arrangement_cost
        return found if costs is None else {**found, "arrangement_cost": asdict(costs)}

    @classmethod
    def from_entry(cls, entry: Entry) -> PlacementFigures:
        costs = entry.maybe_entry("arrangement_cost")
        found = None
        if costs is not None:
            numbers = [costs.maybe_number(k) for k in ("spectral", "leaf", "final", "random")]
            known = [number for number in numbers if number is not None]
            found = ArrangementCosts(*known) if len(known) == len(numbers) else None
        return cls(Faithfulness.from_entry(entry), found)
