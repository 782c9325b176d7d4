"""What every objective of a layout defines: one record, which all other code reads.

Nothing heavy is imported here, so that commands can ask for words without loading a solver.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from projector.settings import setting

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from projector.statistics.correlations import Correlation

# What chooses the first method of every objective.
DEFAULT_SOLVER = "smacof"
STARTS = ("classical", "single-point", "uniform", "normal")


@dataclass(frozen=True)
class Placement:
    """Positions (N, d) float32, NaN for undefined neurons, and how they were reached.

    ``own`` is what the objective alone tells of them, under the names of :attr:`Objective.own`:
    of a linear map, what it was improved from.
    """

    positions: Tensor
    own: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Column:
    """A column that an objective adds to the terminal's table of maps.

    Attributes:
        title: above it.
        read: the number of one map, from its figures by name; None where it is unknown.
        pattern: how the number is written.
    """

    title: str
    read: Callable[[Mapping[str, Any]], float | None]
    pattern: str = "{:.4f}"


@dataclass(frozen=True)
class Method:
    """An algorithm that finds the positions of an objective.

    Attributes:
        name: ``smacof``, ``adamw``, ``moves``, ``tsne``, ``umap``; as ``solver`` it chooses the
            method too.
        reads: which of the settings that only some methods read change what it finds.
        place: positions of several maps from their correlations. None where positions are trained,
            batch by batch while the model runs, by the objective's loss.
        pair_bytes: what placing a map of N neurons takes of memory for each of its N² pairs,
            beside what was gathered. Measured.
        library_bytes: what libraries load and compile when it is first used.
        seconds: about how long one map takes, from its neurons, the layout and the device.
        seconds_sampled: the same of a map without a matrix of correlations, from its neurons, the
            tokens of its sample, and the device; None where it needs the matrix.
    """

    name: str
    reads: frozenset[str] = frozenset()
    place: Callable[[Sequence[Correlation], Settings], list[Placement]] | None = None
    pair_bytes: int = 34
    library_bytes: int = 0
    seconds: Callable[[int, Settings, torch.device], float] = lambda n, layout, device: 0.0
    seconds_sampled: Callable[[int, int, torch.device], float] | None = None

    @property
    def trains(self) -> bool:
        """Whether positions are trained batch by batch while the model runs."""
        return self.place is None

    @property
    def may_sample(self) -> bool:
        """Whether it does without a matrix of correlations."""
        return self.seconds_sampled is not None


@dataclass(frozen=True)
class Objective:
    """What makes positions good, and everything that is particular to it.

    Attributes:
        name: what a user chooses it by.
        help: one line for a help text, without a full stop.
        methods: what finds its positions, by the solver that chooses it; the first by
            ``DEFAULT_SOLVER``, the solver of every layout that names no other.
        dim: coordinates of a position unless others are asked for.
        most_dim: the most that it can have; None for any number.
        loss: for methods that train: points (n, d), their ρ (n, n), and the order of the norm → a
            scalar to lower, differentiable.
        finish: for methods that train: trained points (n, d) → positions (n, d).
        lacks: what its positions do not promise, and why a figure of trust that needs it is
            without meaning.
        own: names of what it alone tells of a map: numbers by name, saved beside the figures of
            trust, as :attr:`Placement.own` gives them.
        columns: columns of the terminal's table for those.
        legend: what these columns tell.
        is_order: whether positions are places in an order, evenly spaced.
        evenly: why its positions are no denser in one place than in another, so that no groups
            can be found by density; empty where they can.
        read: how to read a map of it, for a person who looks at one.
        then: the objective that a person who has seen this one may try next; empty for any other.
    """

    name: str
    help: str
    methods: Mapping[str, Method]
    dim: int = 3
    most_dim: int | None = None
    loss: Callable[[Tensor, Tensor, float], Tensor] | None = None
    finish: Callable[[Tensor], Tensor] = lambda points: points - points.mean(dim=0)
    lacks: Mapping[str, str] = field(default_factory=dict)
    own: tuple[str, ...] = ()
    columns: tuple[Column, ...] = ()
    legend: str = ""
    is_order: bool = False
    evenly: str = ""
    read: str = "Neighbours fire together; far distances mean little."
    then: str = ""


OBJECTIVES: dict[str, Objective] = {}


def register(objective: Objective) -> None:
    """Make an objective known, by its name, to every command, estimate, figure and page."""
    OBJECTIVES[objective.name] = objective


def solvers() -> list[str]:
    """What chooses a method of some objective."""
    return list(dict.fromkeys(s for each in OBJECTIVES.values() for s in each.methods))


def trained_solvers() -> list[str]:
    """What chooses a method that trains positions while the model runs."""
    methods = [item for each in OBJECTIVES.values() for item in each.methods.items()]
    return list(dict.fromkeys(solver for solver, how in methods if how.trains))


def objective_help() -> str:
    """What a user may choose between, in one line of marked-up text."""
    return " ".join(f"[b]{each.name}[/b]: {each.help}." for each in OBJECTIVES.values())


def dim_help() -> str:
    """The dimensions that objectives have unasked: ``3, or 1 for linear``."""
    usual = max(dims := [each.dim for each in OBJECTIVES.values()], key=dims.count)
    others = [f"{each.dim} for {each.name}" for each in OBJECTIVES.values() if each.dim != usual]
    return f"Dimensions of the map: {', or '.join([str(usual), *others])}."


def solver_names() -> list[str]:
    """What a user may write for a solver: what chooses a method, or the method's own name."""
    methods = [how.name for each in OBJECTIVES.values() for how in each.methods.values()]
    return list(dict.fromkeys([*solvers(), *methods]))


def solver_help() -> str:
    """The method that each objective has unasked, and the others, in one line of marked-up text."""
    usual = [
        f"[b]{each.methods[DEFAULT_SOLVER].name}[/b] for {each.name}"
        for each in OBJECTIVES.values()
    ]
    parts = [f"By default {', '.join(usual)}."]
    for solver in solvers():
        if solver == DEFAULT_SOLVER:
            continue
        having = {o.name: o.methods[solver] for o in OBJECTIVES.values() if solver in o.methods}
        learns = ", which learns batch by batch," if any(h.trains for h in having.values()) else ""
        parts.append(f"[b]{solver}[/b]{learns} for {' or '.join(having)}.")
    return " ".join(parts)


def _read_with(name: str) -> str:
    """The solvers with which some objective reads a setting: ``smacof or adamw``."""
    methods = [item for each in OBJECTIVES.values() for item in each.methods.items()]
    return " or ".join(dict.fromkeys(solver for solver, how in methods if name in how.reads))


@dataclass(frozen=True)
class Settings:
    """What a method may read of a layout; :class:`projector.layouts.settings.Layout` checks it.

    Attributes:
        objective: one of :data:`OBJECTIVES`.
        solver: what chooses the objective's method: ``DEFAULT_SOLVER`` the first one it has,
            ``adamw`` to train positions while the model runs. The name of the first method does
            as well.
        dim: coordinates of a position; None for what the objective has unasked.
        seed: of everything random, 0 to 2³² − 1.
        start: where positions start from, one of ``STARTS``.
        p: order of the norm that distances are measured by, at least 1.
        lr: learning rate of a method that trains.
        accumulate: batches per step of a method that trains.
        absolute: use |ρ| in place of ρ.
    """

    objective: str = setting("stress", help=objective_help)
    solver: str = setting(DEFAULT_SOLVER, help=solver_help)
    # None is resolved when the layout is made.
    dim: int = setting(None, help=dim_help)
    seed: int = setting(0, help="Seed of all random choices.")
    start: str = setting(
        "classical",
        help=f"Initial positions: {', '.join(STARTS)}.",
        choices=STARTS,
        by_some=True,
    )
    p: float = setting(
        2.0,
        help=lambda: f"Order of the Lp distance. Orders other than 2 need {_read_with('p')}.",
        by_some=True,
    )
    lr: float = setting(3e-3, help=lambda: f"Learning rate of {_read_with('lr')}.", by_some=True)
    accumulate: int = setting(
        1, help=lambda: f"Batches per step of {_read_with('accumulate')}.", by_some=True
    )
    absolute: bool = setting(False, help="Use |ρ| instead of ρ.")

    @property
    def record(self) -> Objective:
        """The record of its objective."""
        return OBJECTIVES[self.objective]

    @property
    def how(self) -> Method:
        """What finds its positions."""
        return self.record.methods[self.solver]

    @property
    def method(self) -> str:
        """The name of the algorithm that does the work: smacof, adamw, moves, tsne …"""
        return self.how.name


def each_placed(
    place: Callable[[Tensor, Settings], Placement],
) -> Callable[[Sequence[Correlation], Settings], list[Placement]]:
    """A method that places one map after another, each from the matrix of its defined neurons.

    Args:
        place: (n, n) float32 ρ, or |ρ| where the layout asks for that, without NaN, n at least 1 →
            positions (n, d).
    """

    def place_all(correlations: Sequence[Correlation], layout: Settings) -> list[Placement]:
        return [_placed(place, correlation, layout) for correlation in correlations]

    return place_all


def _placed(
    place: Callable[[Tensor, Settings], Placement], correlation: Correlation, layout: Settings
) -> Placement:
    from projector.statistics.correlations import among_all

    rho = correlation.matrix()
    if len(rho) == 0:
        found = Placement(rho.new_zeros(0, layout.dim))
    else:
        found = place(rho.abs() if layout.absolute else rho, layout)
    return Placement(among_all(found.positions, correlation.is_defined), found.own)
