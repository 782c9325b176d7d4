"""The definition of an objective of layouts: one record, which all other code reads.

No heavy package is imported here, so that commands can show help without loading a solver.
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

    ``own`` holds figures that only this objective has, under the names in :attr:`Objective.own`;
    for a linear map, the costs of the orders it was improved from.
    """

    positions: Tensor
    own: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Column:
    """A column that an objective adds to the table of maps in the terminal.

    Attributes:
        title: its title.
        read: gets a map's number from its figures by name; None if unknown.
        pattern: format of the number.
    """

    title: str
    read: Callable[[Mapping[str, Any]], float | None]
    pattern: str = "{:.4f}"


@dataclass(frozen=True)
class Method:
    """An algorithm that finds positions for an objective.

    Attributes:
        name: ``smacof``, ``adamw``, ``moves``, ``tsne``, ``umap``; also accepted as ``solver``.
        reads: the settings, among those that only some methods read, that affect its result.
        place: computes positions of several maps from their correlations. None if positions are
            trained with the objective's loss, batch by batch while the model runs.
        pair_bytes: measured memory for placing a map of N neurons, per N² pairs, in addition to the
            gathered data.
        library_bytes: memory of the libraries that are loaded and compiled at the first use.
        seconds: estimates the time for one map from its number of neurons, the layout and the
            device.
        seconds_sampled: the same for a map without a correlation matrix, from its number of
            neurons, the tokens of its sample, and the device; None if the method needs the matrix.
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
        """Whether it works without a correlation matrix."""
        return self.seconds_sampled is not None


@dataclass(frozen=True)
class Objective:
    """An objective of layouts, with everything that is specific to it.

    Attributes:
        name: the name that a user chooses it by.
        help: one line for a help text, without a full stop.
        methods: its methods, by the solver that chooses them; the first is chosen by
            ``DEFAULT_SOLVER``, the default solver of every layout.
        dim: default number of dimensions.
        most_dim: largest number of dimensions; None for no limit.
        loss: for methods that train: points (n, d), their ρ (n, n), and the order of the norm → a
            differentiable scalar to minimise.
        finish: for methods that train: trained points (n, d) → positions (n, d).
        lacks: properties that its positions don't have, each with the reason why a figure that
            needs it has no meaning.
        own: names of figures that only this objective has; see :attr:`Placement.own`. They are
            saved next to the measures of faithfulness.
        columns: columns for them in the terminal's table.
        legend: explanation of these columns.
        is_order: whether positions are evenly spaced ranks of an order.
        evenly: the reason why its positions are equally dense everywhere, so that groups can't be
            found by density; empty if they can.
        read: how to read its maps, for the user.
        then: the objective to suggest next after this one; empty for any other.
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
    """Register an objective for every command, estimate, figure and page."""
    OBJECTIVES[objective.name] = objective


def solvers() -> list[str]:
    """The solvers that choose a method of some objective."""
    return list(dict.fromkeys(s for each in OBJECTIVES.values() for s in each.methods))


def trained_solvers() -> list[str]:
    """The solvers that train positions while the model runs."""
    methods = [item for each in OBJECTIVES.values() for item in each.methods.items()]
    return list(dict.fromkeys(solver for solver, how in methods if how.trains))


def objective_help() -> str:
    """The choice of objectives, as one line of help with markup."""
    return " ".join(f"[b]{each.name}[/b]: {each.help}." for each in OBJECTIVES.values())


def dim_help() -> str:
    """The default dimensions of objectives, as one line of help."""
    usual = max(dims := [each.dim for each in OBJECTIVES.values()], key=dims.count)
    others = [f"{each.dim} for {each.name}" for each in OBJECTIVES.values() if each.dim != usual]
    return f"Dimensions of the map. By default {', or '.join([str(usual), *others])}."


def solver_names() -> list[str]:
    """The valid names of solvers, including names of methods."""
    methods = [how.name for each in OBJECTIVES.values() for how in each.methods.values()]
    return list(dict.fromkeys([*solvers(), *methods]))


def solver_help() -> str:
    """The default method of each objective, and the other methods, as one line of help with
    markup.
    """
    usual = [
        f"[b]{each.methods[DEFAULT_SOLVER].name}[/b] for {each.name}"
        for each in OBJECTIVES.values()
    ]
    parts = []
    for solver in solvers():
        if solver == DEFAULT_SOLVER:
            continue
        having = {o.name: o.methods[solver] for o in OBJECTIVES.values() if solver in o.methods}
        learns = " learns batch by batch, and" if any(h.trains for h in having.values()) else ""
        parts.append(f"[b]{solver}[/b]{learns} solves {_listed(list(having))}")
    sentences = [f"By default {_listed(usual)}", "; ".join(parts)]
    return " ".join(f"{each}." for each in sentences if each)


def _listed(words: list[str]) -> str:
    """``a, b and c``."""
    return " and ".join(", ".join(words).rsplit(", ", 1))


def _read_with(name: str) -> str:
    """The solvers with which some objective reads a setting: ``smacof or adamw``."""
    methods = [item for each in OBJECTIVES.values() for item in each.methods.items()]
    return " or ".join(dict.fromkeys(solver for solver, how in methods if name in how.reads))


@dataclass(frozen=True)
class Settings:
    """The settings of a layout, checked by :class:`projector.layouts.settings.Layout`.

    Attributes:
        objective: one of :data:`OBJECTIVES`.
        solver: chooses the objective's method: ``DEFAULT_SOLVER`` for its first method, ``adamw``
            to train positions while the model runs. The name of the first method is also accepted.
        dim: number of dimensions; None for the objective's default.
        seed: seed of all random choices, 0 to 2³² − 1.
        start: initial positions, one of ``STARTS``.
        p: order of the norm for distances, at least 1.
        lr: learning rate of a method that trains.
        accumulate: batches per step of a method that trains.
        absolute: use |ρ| instead of ρ.
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
        """The record of the objective."""
        return OBJECTIVES[self.objective]

    @property
    def how(self) -> Method:
        """The method that finds its positions."""
        return self.record.methods[self.solver]

    @property
    def method(self) -> str:
        """The name of the algorithm: smacof, adamw, moves, tsne …"""
        return self.how.name


def each_placed(
    place: Callable[[Tensor, Settings], Placement],
) -> Callable[[Sequence[Correlation], Settings], list[Placement]]:
    """Create a method that places one map after another, each from the matrix of its defined
    neurons.

    Args:
        place: (n, n) float32 ρ (or |ρ| if the layout uses it), without NaN, n ≥ 1 → positions (n,
            d).
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
