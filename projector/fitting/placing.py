"""Turn the gathered data of one layer and site into a map: positions, figures, statistics."""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor

from projector.corpus.numbering import KeptTokens, token_numbers
from projector.fitting.preparing import Job
from projector.layouts.settings import Layout
from projector.layouts.solving import Placement, finish_trained, solve_all
from projector.projection.facts import MapFacts, SampleFacts
from projector.projection.faithfulness import PlacementFigures, measure
from projector.statistics.correlations import among_all
from projector.statistics.examples import RunningExamples
from projector.statistics.gathering import Halves
from projector.statistics.organisation import NOTHING_DEFINED
from projector.statistics.sampling import SamplingError, TokenSample, evenly_drawn
from projector.statistics.summary import Summary, summarize


@dataclass(frozen=True)
class MapPlacement:
    """One map in one layout.

    Attributes:
        positions: (N, d) float32 on the CPU, NaN for undefined neurons.
        figures: measures of how faithful they are.
    """

    positions: Tensor
    figures: PlacementFigures


@dataclass(frozen=True)
class PlacedMap:
    """One layer and site of a projection, with its positions in each layout.

    Attributes:
        name: its key in every file.
        facts: facts that don't depend on the layout.
        placements: layout name → placement, in the order of the layouts.
        statistics: its tensors for ``statistics.safetensors``, by name; empty if none are kept.
        examples: examples of its neurons, by tensor name, with tokens as indices in the corpus;
            empty if none are kept.
    """

    name: str
    facts: MapFacts
    placements: Mapping[str, MapPlacement]
    statistics: Mapping[str, Tensor] = field(default_factory=dict)
    examples: Mapping[str, Tensor] = field(default_factory=dict)


def place_map(
    name: str,
    gathered: Halves | TokenSample,
    layouts: Sequence[Layout],
    *,
    trained: Mapping[str, Tensor] | None = None,
) -> PlacedMap:
    """Place a map in every layout, and measure each placement; ``gathered`` is not modified.

    Args:
        gathered: statistics of the two halves of the corpus; or a sample of its tokens.
        layouts: the layouts, with unique names.
        trained: layout name → (N, d) positions, for layouts that were trained while the model ran.

    Returns:
        The map without statistics: see
            :func:`projector.statistics.summary.kept_statistics`.
    """
    found = summarize(gathered)
    placements = {
        layout.name: _place(found, layout, (trained or {}).get(layout.name)) for layout in layouts
    }
    return PlacedMap(name, map_facts(found), placements)


def _place(found: Summary, layout: Layout, trained: Tensor | None) -> MapPlacement:
    if trained is None:
        placement, *of_halves = solve_all([found.whole, *found.halves], layout)
        half_positions = [half.positions for half in of_halves]
        trust = measure(placement.positions, found.whole, layout, found.halves, half_positions)
    else:
        alive = found.whole.is_defined
        placement = Placement(among_all(finish_trained(trained[alive], layout), alive))
        trust = measure(
            placement.positions,
            found.whole,
            layout,
            found.halves,
            no_halves=f"{layout.method} trains one map, over the whole corpus",
        )
    return MapPlacement(placement.positions.cpu(), PlacementFigures(trust, placement.own))


def map_facts(found: Summary) -> MapFacts:
    """The facts of a map that don't depend on the layout."""
    organisation = found.organisation()
    return MapFacts(
        n_neurons=found.n_neurons,
        n_tokens=found.n_tokens,
        dead_neurons=found.dead,
        nonfinite_neurons=found.nonfinite,
        n_tokens_left_out=found.n_left_out,
        sample=None if found.sampling is None else _sample_facts(found.sampling),
        organisation=organisation,
        organisation_reason=NOTHING_DEFINED if organisation is None else None,
    )


def _sample_facts(error: SamplingError) -> SampleFacts:
    # JSON has no NaN.
    measured, expected = (
        None if math.isnan(value) else value for value in (error.measured, error.if_independent)
    )
    return SampleFacts(error.n_tokens, error.n_corpus_tokens, error.n_pairs, measured, expected)


def found_examples(name: str, running: RunningExamples | None) -> dict[str, Tensor]:
    """The examples of a map's neurons, by tensor name; empty if none were gathered."""
    found = {} if running is None else running.found()
    return {f"{name}.{what}": tensor for what, tensor in found.items()}


def example_tensors(job: Job, maps: Sequence[PlacedMap]) -> Mapping[str, Tensor]:
    """The tensors for ``examples.safetensors`` of a finished fit, with the text of its tokens.

    For a large corpus, only the tokens around the examples are stored.
    """
    facts, corpus = job.examples, job.corpus
    assert facts is not None
    assert job.pieces is not None
    # Single tensors of it may be on disk, and are read when they are asked for.
    found = ChainMap(*(cast(dict[str, Tensor], each.examples) for each in maps))
    drawn = evenly_drawn(corpus.n_tokens, facts.n_sample)
    at = {name: found[name] for name in found if name.endswith("_at")}
    at["sample_at"] = token_numbers(corpus, drawn)
    if facts.is_whole:
        kept = KeptTokens.whole(corpus)
    else:
        shown = torch.cat([each.reshape(-1) for each in at.values()])
        kept = KeptTokens.around(corpus, shown, facts.n_before, facts.n_after)
    own = {name: kept.moved(tensor) for name, tensor in at.items()}
    own |= {"ids": kept.ids, "starts": kept.starts}
    own |= job.pieces.of_ids(kept.ids).state()
    return ChainMap(own, cast(dict[str, Tensor], found))
