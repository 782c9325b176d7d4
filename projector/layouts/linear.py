"""The linear arrangement: an order in which neurons that fire together stand together."""

from __future__ import annotations

from projector.layouts.objective import DEFAULT_SOLVER, Method, Objective

LINEAR = Objective(
    name="linear",
    help="an order, in 1-D",
    methods={
        DEFAULT_SOLVER: Method(name="moves"),
        "adamw": Method(name="adamw", reads=frozenset({"start", "lr", "accumulate"}), trains=True),
    },
    dim=1,
    most_dim=1,
    lacks={"distances": "the distances of a linear map are not meant to be 1 − ρ"},
)
