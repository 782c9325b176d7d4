"""What every objective of a layout tells of itself: one record, which all else reads.

Nothing heavy is imported here, so that commands can ask for words without loading a solver.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

# What chooses the first method of every objective.
DEFAULT_SOLVER = "smacof"


class Settings(Protocol):
    """What a method may read of a layout; see :class:`projector.layouts.settings.Layout`."""

    @property
    def objective(self) -> str: ...
    @property
    def solver(self) -> str: ...
    @property
    def dim(self) -> int: ...
    @property
    def seed(self) -> int: ...
    @property
    def start(self) -> str: ...
    @property
    def p(self) -> float: ...
    @property
    def lr(self) -> float: ...
    @property
    def accumulate(self) -> int: ...
    @property
    def absolute(self) -> bool: ...


@dataclass(frozen=True)
class Method:
    """An algorithm that finds the positions of an objective.

    Attributes:
        name: ``smacof``, ``adamw``, ``moves``, ``umap``.
        reads: which of the settings ``start``, ``p``, ``lr`` and ``accumulate`` change what it
            finds; ``dim``, ``seed`` and ``absolute`` are for all.
        trains: whether positions are trained batch by batch while the model runs.
    """

    name: str
    reads: frozenset[str] = frozenset()
    trains: bool = False


@dataclass(frozen=True)
class Objective:
    """What makes positions good, and everything that is particular to it.

    Attributes:
        name: what a user chooses it by.
        help: one line for a help text, without a full stop.
        methods: what finds its positions, by the solver that chooses it; the first by
            ``smacof``, the solver of every layout that names no other.
        dim: coordinates of a position unless others are asked for.
        most_dim: the most that it can have; None for any number.
        lacks: what its positions do not promise, and why a figure of trust that needs it is
            without meaning.
        read: how to read a map of it, for a person who looks at one.
    """

    name: str
    help: str
    methods: Mapping[str, Method]
    dim: int = 3
    most_dim: int | None = None
    lacks: Mapping[str, str] = field(default_factory=dict)
    read: str = "Neighbours fire together; far distances mean little."
