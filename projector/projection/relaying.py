"""New positions from what a projection kept, without its model."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from torch import Tensor

from projector.errors import UserError
from projector.fitting.placing import arrangement_facts
from projector.layouts.solving import Layout, solve
from projector.memory import memory_errors
from projector.progress import Progress, Silent
from projector.projection.faithfulness import measure
from projector.projection.projection import Projection
from projector.projection.provenance import versions
from projector.sites import map_name


def relayout(
    projection: Projection, layout: Layout, *, progress: Progress | None = None
) -> Projection:
    """New positions from a projection's saved correlations, without the model.

    The stability of the new map is unknown: the halves of the corpus were not kept.

    Raises:
        UserError: if the correlations of a map were not kept.
    """
    progress = progress or Silent()
    lacking = [
        f"layer {layer} {site}"
        for layer, site in projection.maps
        if not projection.has_statistics_of(layer, site)
    ]
    if projection.has_statistics and lacking:
        raise UserError(
            f"there was no room for the correlations of {', '.join(lacking)}, and other positions "
            "need them: make the projection again with more --memory-budget"
        )
    positions: dict[str, Tensor] = {}
    maps: dict[str, dict[str, Any]] = {}
    keep = ("n_neurons", "n_tokens", "dead_neurons", "nonfinite_neurons", "n_tokens_left_out")
    progress.begin("Placing neurons", len(projection.maps), "maps")
    for layer, site in projection.maps:
        name = map_name(layer, site)
        correlation = projection.correlation(layer, site)
        with memory_errors(layer, site, correlation.shape[0]):
            placement = solve(correlation, layout)
            faithfulness = measure(
                placement.positions,
                correlation,
                layout,
                no_halves="the halves of the corpus were not kept",
            )
        positions[name] = placement.positions
        old = projection.figures(layer, site)
        kept = {k: old[k] for k in keep}
        maps[name] = kept | faithfulness.as_dict() | arrangement_facts(placement)
        progress.advance(1)
    progress.end()
    facts = projection.facts | {
        "layout": {**asdict(layout), "method": layout.method},
        "maps": maps,
        "versions": versions(),
    }
    return Projection(facts, positions, projection.statistics)
