"""The objectives that layouts may have: one line registers one."""

from __future__ import annotations

from projector.layouts.linear import LINEAR
from projector.layouts.neighbours import NEIGHBOURS
from projector.layouts.objective import Objective
from projector.layouts.stress import STRESS

__all__ = ["OBJECTIVES", "Objective", "register", "solvers"]

OBJECTIVES: dict[str, Objective] = {}


def register(objective: Objective) -> None:
    """Make an objective known, by its name, to every command, estimate, figure and page."""
    OBJECTIVES[objective.name] = objective


def solvers() -> list[str]:
    """What chooses a method of some objective."""
    return list(dict.fromkeys(s for each in OBJECTIVES.values() for s in each.methods))


register(STRESS)
register(LINEAR)
register(NEIGHBOURS)
