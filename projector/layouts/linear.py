"""The linear arrangement: an order in which neurons that fire together are close."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from projector.layouts.objective import (
    DEFAULT_SOLVER,
    Column,
    Method,
    Objective,
    Placement,
    Settings,
    each_placed,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor


# Sums of |πᵢ − πⱼ|·(1 + ρᵢⱼ)/2 over pairs: of the two orders that it began with, of its own, and
# the mean of random ones.
_COSTS = "arrangement_cost"


def _arrange(correlation: Tensor, layout: Settings) -> Placement:
    from projector.layouts.solvers.arrangement import arrange, positions_of

    arrangement = arrange(correlation)
    costs = {
        "spectral": arrangement.spectral_cost,
        "leaf": arrangement.leaf_cost,
        "final": arrangement.cost,
        "random": arrangement.random_cost,
    }
    return Placement(positions_of(arrangement.ranks), {_COSTS: costs})


def _share_of_random(name: str) -> Callable[[Mapping[str, Any]], float | None]:
    """A cost as a share of what a random order costs: the bare sums grow with N³."""

    def read(figures: Mapping[str, Any]) -> float | None:
        costs = figures.get(_COSTS)
        return costs[name] / costs["random"] if costs and costs["random"] else None

    return read


def _loss(points: Tensor, correlation: Tensor, p: float) -> Tensor:
    """Σ|x_i − x_j|(1 + ρ_ij)/2, per pair, on points of mean 0 and the spread of ranks on [0, √N].

    With the spread left free, all points together would cost nothing. With it fixed, |x| itself
    still draws points into two clumps, whose order within is noise; its kink is rounded over three
    rank spacings, √(x² + w²) − w, so that points closer than that no longer pull each other in.
    """
    n = points.shape[0]
    centred = points[:, 0] - points[:, 0].mean()
    spread = math.sqrt(n / 12)
    x = centred * (spread / centred.square().mean().sqrt().clamp(min=1e-12))
    width = 3 * math.sqrt(n) / (n - 1)
    apart = ((x[:, None] - x[None, :]).square() + width**2).sqrt() - width
    return (apart * (1 + correlation) / 2).sum() / (n * (n - 1))


def _ranks(points: Tensor) -> Tensor:
    import torch

    from projector.layouts.solvers.arrangement import positions_of, ranks_of

    return positions_of(ranks_of(torch.argsort(points[:, 0], stable=True)))


def _seconds(n: int, layout: Settings, device: torch.device) -> float:
    """Scaled from 768 neurons on two cores."""
    return 1.5 * (n / 768) ** 2.3


LINEAR = Objective(
    name="linear",
    help="an order, in 1-D",
    methods={
        DEFAULT_SOLVER: Method(
            name="moves",
            place=each_placed(_arrange),
            pair_bytes=130,
            library_bytes=32 << 20,
            seconds=_seconds,
        ),
        "adamw": Method(
            name="adamw", reads=frozenset({"start", "lr", "accumulate"}), pair_bytes=32
        ),
    },
    dim=1,
    most_dim=1,
    loss=_loss,
    finish=_ranks,
    lacks={"distances": "the distances of a linear map don't represent 1 − ρ"},
    own=(_COSTS,),
    columns=(
        Column("spectral", _share_of_random("spectral")),
        Column("leaf", _share_of_random("leaf")),
        Column("cost", _share_of_random("final")),
    ),
    legend="cost of the linear arrangement, as a share of a random order's; spectral and leaf are "
    "the two orders it was improved from",
    is_order=True,
    evenly="its neurons are all one step apart, so no place is denser",
    then="neighbours",
)
