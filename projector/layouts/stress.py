"""Stress: distances match 1 − ρ."""

from __future__ import annotations

from projector.layouts.objective import DEFAULT_SOLVER, Method, Objective

STRESS = Objective(
    name="stress",
    help="distances match 1 − ρ",
    methods={
        DEFAULT_SOLVER: Method(name="smacof", reads=frozenset({"start"})),
        "adamw": Method(
            name="adamw", reads=frozenset({"start", "p", "lr", "accumulate"}), trains=True
        ),
    },
    read="Axes are in units of 1 − ρ, ρ being the correlation of two neurons' activations: two "
    "points are as near to that distance as the dimensions allow. How near is said beside the map.",
)
