"""From what was gathered of one layer and site to its map: positions, figures, statistics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from projector.layouts.solving import Layout, Placement, among_all, finish_trained, solve, solve_all
from projector.projection.facts import MapFacts, SampleFacts
from projector.projection.faithfulness import measure
from projector.projection.provenance import arrangement_costs
from projector.projection.trust import PlacementFigures
from projector.statistics.correlations import MatrixFree, Sampled
from projector.statistics.gathering import HalfStatistics, Halves
from projector.statistics.sampling import (
    SamplingError,
    TokenSample,
    sampling_error,
    standardize,
)


@dataclass(frozen=True)
class MapPlacement:
    """One map in one layout.

    Attributes:
        positions: (N, d) float32 on the CPU, NaN for undefined neurons.
        figures: how far they can be trusted.
    """

    positions: Tensor
    figures: PlacementFigures


@dataclass(frozen=True)
class PlacedMap:
    """One layer and site as a projection holds it: once, and in each of its layouts.

    Attributes:
        name: its key in every file.
        facts: what is known of it whatever the layout.
        placements: layout name → its positions there, in the order of the layouts.
        statistics: what ``statistics.safetensors`` is to hold of it, by tensor name; empty where
            none are kept.
    """

    name: str
    facts: MapFacts
    placements: Mapping[str, MapPlacement]
    statistics: Mapping[str, Tensor] = field(default_factory=dict)


def place_map(
    name: str,
    gathered: Halves | TokenSample,
    layouts: Sequence[Layout],
    *,
    trained: Mapping[str, Tensor] | None = None,
) -> PlacedMap:
    """One map in every layout, and how far each can be trusted. What was gathered stays as it is.

    Args:
        gathered: statistics of the two halves of the corpus; or a sample of its tokens.
        layouts: how to find positions; no two of one name.
        trained: layout name → (N, d) positions, of layouts whose positions were trained while the
            model ran.

    Returns:
        The map without statistics: see :func:`kept_statistics`.
    """
    if isinstance(gathered, TokenSample):
        return _place_sampled(name, gathered, layouts)
    first, second = gathered
    whole = first.merged(second)
    correlation = whole.correlation()
    parts = (first.correlation(), second.correlation())
    placements = {
        layout.name: _place_stored(correlation, parts, layout, (trained or {}).get(layout.name))
        for layout in layouts
    }
    return PlacedMap(name, map_facts(whole, correlation), placements)


def _place_stored(
    correlation: Tensor, parts: tuple[Tensor, Tensor], layout: Layout, trained: Tensor | None
) -> MapPlacement:
    if trained is not None:
        placement = _placement_of(trained, correlation, layout)
        trust = measure(
            placement.positions,
            correlation,
            layout,
            parts,
            no_halves="adamw trains one map, over the whole corpus",
        )
    else:
        placement, *of_halves = solve_all([correlation, *parts], layout)
        half_positions = (of_halves[0].positions, of_halves[1].positions)
        trust = measure(placement.positions, correlation, layout, parts, half_positions)
    figures = PlacementFigures(trust, arrangement_costs(placement))
    return MapPlacement(placement.positions.cpu(), figures)


def _place_sampled(name: str, sample: TokenSample, layouts: Sequence[Layout]) -> PlacedMap:
    """The same without any matrix: correlations are computed wherever they are read."""
    is_lost, n_nonfinite = sample.undefined()
    whole, *parts = (
        _standardized(sample, chosen & ~is_lost)
        for chosen in (torch.ones_like(is_lost), *sample.halves())
    )
    halves = (parts[0], parts[1])
    placements: dict[str, MapPlacement] = {}
    for layout in layouts:
        positions, first, second = (_positions_of(found, layout) for found in (whole, *halves))
        trust = measure(positions, whole, layout, halves, (first, second))
        placements[layout.name] = MapPlacement(positions.cpu(), PlacementFigures(trust))
    broken = n_nonfinite.nonzero()[:, 0].tolist()
    dead = (~whole.is_defined).cpu() & (n_nonfinite == 0)
    facts = MapFacts(
        n_neurons=sample.n_neurons,
        n_tokens=whole.sample.n_tokens,
        dead_neurons=tuple(dead.nonzero()[:, 0].tolist()),
        nonfinite_neurons={i: int(n_nonfinite[i]) for i in broken},
        n_tokens_left_out=int(is_lost.sum()),
        sample=_sample_facts(sampling_error(whole.sample, sample.n_corpus_tokens)),
    )
    return PlacedMap(name, facts, placements)


def _sample_facts(error: SamplingError) -> SampleFacts:
    # JSON has no NaN.
    measured, expected = (
        None if math.isnan(value) else value for value in (error.measured, error.if_independent)
    )
    return SampleFacts(error.n_tokens, error.n_corpus_tokens, error.n_pairs, measured, expected)


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


def map_facts(statistics: HalfStatistics, correlation: Tensor) -> MapFacts:
    """What is known of one map whatever the layout."""
    covariance = statistics.covariance
    broken = covariance.is_broken.nonzero()[:, 0].tolist()
    # Without variance; where correlations are per-sequence, without any within a sequence.
    dead = ~correlation.diagonal().isfinite() & ~covariance.is_broken
    return MapFacts(
        n_neurons=covariance.n_neurons,
        n_tokens=covariance.n_tokens,
        dead_neurons=tuple(dead.nonzero()[:, 0].tolist()),
        nonfinite_neurons={i: int(covariance.n_nonfinite[i]) for i in broken},
        n_tokens_left_out=covariance.n_left_out,
    )
