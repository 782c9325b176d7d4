"""The objectives that layouts may have: one line registers one."""

from __future__ import annotations

from projector.layouts.linear import LINEAR
from projector.layouts.neighbours import NEIGHBOURS
from projector.layouts.objective import Objective
from projector.layouts.stress import STRESS

__all__ = ["OBJECTIVES", "Objective", "dim_help", "objective_help", "register", "solvers"]

OBJECTIVES: dict[str, Objective] = {}


def register(objective: Objective) -> None:
    """Make an objective known, by its name, to every command, estimate, figure and page."""
    OBJECTIVES[objective.name] = objective


def objective_help() -> str:
    """What a user may choose between, in one line of marked-up text."""
    return " ".join(f"[b]{each.name}[/b]: {each.help}." for each in OBJECTIVES.values())


def dim_help() -> str:
    """The dimensions that objectives have unasked: ``3, or 1 for linear``."""
    usual = max(dims := [each.dim for each in OBJECTIVES.values()], key=dims.count)
    others = [f"{each.dim} for {each.name}" for each in OBJECTIVES.values() if each.dim != usual]
    return f"Coordinates of a position: {', or '.join([str(usual), *others])}."


def solvers() -> list[str]:
    """What chooses a method of some objective."""
    return list(dict.fromkeys(s for each in OBJECTIVES.values() for s in each.methods))


register(STRESS)
register(LINEAR)
register(NEIGHBOURS)
