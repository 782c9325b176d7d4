"""From what was gathered of one layer and site to its map: positions, figures, statistics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from projector.faithfulness import Faithfulness, measure
from projector.gathering import HalfStatistics
from projector.solvers import Layout, Placement, finish_trained, solve_all


@dataclass(frozen=True)
class PlacedMap:
    """One layer and site as a projection holds it.

    Attributes:
        name: its key in every file.
        positions: (N, d) float32, NaN for undefined neurons.
        statistics: what ``statistics.safetensors`` is to hold of it, by tensor name; empty where
            none are kept.
        facts: its entry in ``projection.json``.
    """

    name: str
    positions: Tensor
    statistics: Mapping[str, Tensor]
    facts: dict[str, Any]


def place_map(
    name: str,
    halves: tuple[HalfStatistics, HalfStatistics],
    layout: Layout,
    *,
    trained: Tensor | None = None,
) -> PlacedMap:
    """Positions of one map, and how far they can be trusted. The halves stay as they are.

    Args:
        halves: statistics of the two halves of the corpus.
        trained: (N, d) positions where they were trained while the model ran.

    Returns:
        The map without statistics: see :func:`kept_statistics`.
    """
    first, second = halves
    whole = first.merged(second)
    correlation = whole.correlation()
    parts = (first.correlation(), second.correlation())
    if trained is None:
        placement, *of_halves = solve_all([correlation, *parts], layout)
        half_positions = (of_halves[0].positions, of_halves[1].positions)
        faithfulness = measure(placement.positions, correlation, layout, parts, half_positions)
    else:
        placement = _placement_of(trained, correlation, layout)
        faithfulness = measure(
            placement.positions,
            correlation,
            layout,
            parts,
            no_halves="adamw trains one map, over the whole corpus",
        )
    facts = map_facts(whole, correlation, placement, faithfulness)
    return PlacedMap(name, placement.positions.cpu(), {}, facts)


def kept_statistics(name: str, halves: tuple[HalfStatistics, HalfStatistics]) -> dict[str, Tensor]:
    """What a projection keeps of what was gathered of one map, by tensor name; float32."""
    whole = halves[0].merged(halves[1])
    statistics = {
        f"{name}.mean": whole.covariance.mean.float().cpu(),
        f"{name}.covariance": whole.covariance.covariance(torch.float32).cpu(),
    }
    if whole.by_sequence is not None:
        statistics[f"{name}.correlation"] = whole.correlation().cpu()
    return statistics


def _placement_of(points: Tensor, correlation: Tensor, layout: Layout) -> Placement:
    alive = correlation.diagonal().isfinite()
    positions = torch.full_like(points, torch.nan)
    positions[alive] = finish_trained(points[alive], layout)
    return Placement(positions)


def map_facts(
    statistics: HalfStatistics,
    correlation: Tensor,
    placement: Placement,
    faithfulness: Faithfulness,
) -> dict[str, Any]:
    """What ``projection.json`` says of one map."""
    covariance = statistics.covariance
    broken = covariance.is_broken.nonzero()[:, 0].tolist()
    # Without variance; where correlations are per-sequence, without any within a sequence.
    dead = ~correlation.diagonal().isfinite() & ~covariance.is_broken
    facts: dict[str, Any] = {
        "n_neurons": covariance.n_neurons,
        "n_tokens": covariance.n_tokens,
        "dead_neurons": dead.nonzero()[:, 0].tolist(),
        # JSON has string keys only: neuron → how often it was NaN or infinite.
        "nonfinite_neurons": {str(i): int(covariance.n_nonfinite[i]) for i in broken},
        "n_tokens_left_out": covariance.n_left_out,
        **faithfulness.as_dict(),
    }
    return facts | arrangement_facts(placement)


def arrangement_facts(placement: Placement) -> dict[str, Any]:
    """What a linear map was improved from; nothing for others."""
    found = placement.arrangement
    if found is None:
        return {}
    return {
        "arrangement_cost": {
            "spectral": found.spectral_cost,
            "leaf": found.leaf_cost,
            "final": found.cost,
            "random": found.random_cost,
        }
    }
