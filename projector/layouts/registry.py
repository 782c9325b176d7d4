"""Registers the available objectives, one per line."""

from __future__ import annotations

from projector.layouts.linear import LINEAR
from projector.layouts.neighbours import NEIGHBOURS
from projector.layouts.objective import (
    OBJECTIVES,
    Objective,
    dim_help,
    objective_help,
    register,
    solver_help,
    solvers,
    trained_solvers,
)
from projector.layouts.stress import STRESS

__all__ = [
    "OBJECTIVES",
    "Objective",
    "dim_help",
    "objective_help",
    "register",
    "solver_help",
    "solvers",
    "trained_solvers",
]

register(STRESS)
register(LINEAR)
register(NEIGHBOURS)
