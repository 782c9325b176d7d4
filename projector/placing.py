"""From what was gathered of one layer and site to its map: positions, figures, statistics."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from projector.faithfulness import Faithfulness, Sampled, measure
from projector.gathering import HalfStatistics, Halves
from projector.kernels import MatrixFree
from projector.sampling import TokenSample, sampling_error, standardize
from projector.solvers import Layout, Placement, finish_trained, solve, solve_all


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
    gathered: Halves | TokenSample,
    layout: Layout,
    *,
    trained: Tensor | None = None,
) -> PlacedMap:
    """Positions of one map, and how far they can be trusted. What was gathered stays as it is.

    Args:
        gathered: statistics of the two halves of the corpus; or a sample of its tokens.
        trained: (N, d) positions where they were trained while the model ran.

    Returns:
        The map without statistics: see :func:`kept_statistics`.
    """
    if isinstance(gathered, TokenSample):
        return _place_sampled(name, gathered, layout)
    first, second = gathered
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


def _place_sampled(name: str, sample: TokenSample, layout: Layout) -> PlacedMap:
    """The same without any matrix: correlations are computed wherever they are read."""
    is_lost, n_nonfinite = sample.undefined()
    activations, halves = sample.rows, sample.halves()
    if bool(is_lost.any()):
        activations = activations[~is_lost]
        halves = (halves[0][~is_lost], halves[1][~is_lost])
    rows, is_alive = standardize(activations, torch.float16)
    # In half precision, as all products of them are; float32 would double what they take.
    whole = Sampled(MatrixFree(rows), is_alive)
    parts = (_part(whole, halves[0]), _part(whole, halves[1]))
    positions, first, second = (_positions_of(found, layout) for found in (whole, *parts))
    faithfulness = measure(positions, whole, layout, parts, (first, second))
    broken = n_nonfinite.nonzero()[:, 0].tolist()
    dead = (~is_alive).cpu() & (n_nonfinite == 0)
    error = asdict(sampling_error(whole.sample))
    facts = {
        "n_neurons": sample.n_neurons,
        "n_tokens": len(activations),
        "dead_neurons": dead.nonzero()[:, 0].tolist(),
        "nonfinite_neurons": {str(i): int(n_nonfinite[i]) for i in broken},
        "n_tokens_left_out": int(is_lost.sum()),
        **faithfulness.as_dict(),
        # JSON has no NaN.
        "sample": {"n_tokens_of": sample.n_of}
        | {key: None if math.isnan(value) else value for key, value in error.items()},
    }
    return PlacedMap(name, positions.cpu(), {}, facts)


def _part(whole: Sampled, chosen: Tensor) -> Sampled:
    """Of these tokens, (T,) bool, alone."""
    rows, is_alive = standardize(whole.sample.rows.T[chosen], torch.float16)
    is_defined = whole.is_defined.clone()
    is_defined[whole.is_defined] = is_alive
    return Sampled(MatrixFree(rows), is_defined)


def _positions_of(found: Sampled, layout: Layout) -> Tensor:
    """(N, d), NaN for undefined neurons."""
    placed = solve(found.sample, layout).positions
    positions = placed.new_full((len(found.is_defined), placed.shape[1]), torch.nan)
    positions[found.is_defined] = placed
    return positions


def kept_statistics(name: str, gathered: Halves | TokenSample) -> dict[str, Tensor]:
    """What a projection keeps of what was gathered of one map, by tensor name; float32."""
    if isinstance(gathered, TokenSample):
        return {}
    whole = gathered[0].merged(gathered[1])
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
