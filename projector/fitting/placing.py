"""From what was gathered of one layer and site to its map: positions, figures, statistics."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from projector.layouts.kernels import MatrixFree
from projector.layouts.solving import Layout, Placement, among_all, finish_trained, solve, solve_all
from projector.projection.faithfulness import Faithfulness, Sampled, measure
from projector.statistics.gathering import HalfStatistics, Halves
from projector.statistics.sampling import TokenSample, sampling_error, standardize


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
    whole, *parts = (
        _standardized(sample, chosen & ~is_lost)
        for chosen in (torch.ones_like(is_lost), *sample.halves())
    )
    halves = (parts[0], parts[1])
    positions, first, second = (_positions_of(found, layout) for found in (whole, *halves))
    faithfulness = measure(positions, whole, layout, halves, (first, second))
    broken = n_nonfinite.nonzero()[:, 0].tolist()
    dead = (~whole.is_defined).cpu() & (n_nonfinite == 0)
    error = asdict(sampling_error(whole.sample, sample.n_corpus_tokens))
    facts = {
        "n_neurons": sample.n_neurons,
        "n_tokens": whole.sample.n_tokens,
        "dead_neurons": dead.nonzero()[:, 0].tolist(),
        "nonfinite_neurons": {str(i): int(n_nonfinite[i]) for i in broken},
        "n_tokens_left_out": int(is_lost.sum()),
        **faithfulness.as_dict(),
        # JSON has no NaN.
        "sample": {key: None if math.isnan(value) else value for key, value in error.items()},
    }
    return PlacedMap(name, positions.cpu(), {}, facts)


def _standardized(sample: TokenSample, chosen: Tensor) -> Sampled:
    """Of these tokens, (T,) bool. In half precision: float32 would double what it takes."""
    rows, is_defined = standardize(sample.rows, torch.float16, chosen)
    return Sampled(MatrixFree(rows), is_defined)


def _positions_of(found: Sampled, layout: Layout) -> Tensor:
    """(N, d), NaN for undefined neurons."""
    return among_all(solve(found.sample, layout).positions, found.is_defined)


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
