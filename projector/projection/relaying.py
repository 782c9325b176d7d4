"""New positions from a projection's saved correlations, without its model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from projector.errors import UserError, named
from projector.layouts.settings import Layout, check_dimensions
from projector.layouts.solving import solve
from projector.memory import memory_errors
from projector.progress import Progress, shown_on_terminal
from projector.projection.faithfulness import PlacementFigures, measure
from projector.projection.overview import read_saved
from projector.projection.projection import PlacedLayout, Projection
from projector.projection.provenance import layout_settings, versions
from projector.projection.writing import check_name, write_layout
from projector.sites import map_name
from projector.storage.additions import adding


def relayout(
    projection: Projection, layout: Layout, *, progress: Progress | None = None
) -> Projection:
    """Make a projection of the same neurons with one new layout, from saved correlations.

    The stability of the new map is unknown, because it isn't fitted to each half of the corpus.

    Args:
        projection: with saved correlations.
        layout: a :class:`projector.layouts.settings.Layout`, such as
            ``Layout(objective="neighbours", dim=2)``.
        progress: see :func:`projector.fitting.pipeline.fit`.

    Raises:
        UserError: if the correlations of a map weren't kept.
    """
    placed = lay_out(projection, layout, progress=progress)
    # No fit made these positions.
    facts = replace(projection.facts, versions=versions(), run=None)
    return replace(projection, facts=facts, layouts={layout.name: placed})


def add_layout(
    folder: str | Path,
    layout: Layout,
    *,
    name: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> tuple[str, Projection]:
    """Add a layout to a saved projection, in place and without the model.

    No existing file is rewritten. Two programs that add layouts at the same time both succeed.

    Args:
        folder: the folder of a saved projection that keeps its correlations.
        layout: a :class:`projector.layouts.settings.Layout`, such as
            ``Layout(objective="neighbours", dim=2)``.
        name: its name; None for a name made from its settings, such as ``stress-3d``.
        force: replace an existing layout with that name.
        progress: see :func:`projector.fitting.pipeline.fit`.

    Returns:
        The layout's name, and the projection with it: after the existing layouts, or in place of
        the one that it replaced.

    Raises:
        UserError: if a layout with the name exists, correlations weren't kept, the projection was
            replaced in the meantime, or the disk is full.
    """
    where = Path(folder)
    chosen = layout.name if name is None else name
    check_name(chosen)
    saved = read_saved(where)
    _check_new(where, chosen, saved.layouts, force=force)
    placed = lay_out(Projection.load(where), layout, progress=progress)
    with adding(where, belongs_to=saved.fingerprint) as addition:
        # As it is now: others may have added to it meanwhile.
        known = read_saved(where).layouts
        _check_new(where, chosen, known, force=force)
        numbers = [each.number for each in known.values()]
        number = known[chosen].number if chosen in known else max(numbers) + 1
        write_layout(
            lambda path: addition.path(path, force=force),
            chosen,
            placed,
            placed.positions,
            number,
            saved.fingerprint,
        )
    return chosen, Projection.load(where)


def lay_out(
    projection: Projection, layout: Layout, *, progress: Progress | None = None
) -> PlacedLayout:
    """Find the positions of every map with ``layout``, from the projection's correlations.

    Raises:
        UserError: if the correlations of a map weren't kept, or it has too few neurons for the
            layout's dimensions.
    """
    progress = shown_on_terminal(progress)
    check_dimensions(
        [layout], [projection.facts.maps[map_name(*key)].n_neurons for key in projection.maps]
    )
    lacking = [
        f"layer {layer} {site}"
        for layer, site in projection.maps
        if not projection.has_statistics_of(layer, site)
    ]
    if projection.has_statistics and lacking:
        raise UserError(
            f"the correlations of {', '.join(lacking)} didn't fit in memory, and another layout "
            f"needs them: make the projection again with a larger {named('memory_budget')}",
            setting="memory_budget",
        )
    positions: dict[str, Tensor] = {}
    figures: dict[str, PlacementFigures] = {}
    progress.begin("Placing neurons", len(projection.maps), "maps")
    for layer, site in projection.maps:
        name = map_name(layer, site)
        correlation = projection.correlation(layer, site)
        with memory_errors(layer, site, correlation.shape[0]):
            placement = solve(correlation, layout)
            trust = measure(
                placement.positions,
                correlation,
                layout,
                no_halves="a layout that is added later isn't fitted to each half",
            )
        positions[name] = placement.positions
        figures[name] = PlacementFigures(trust, placement.own)
        progress.advance(1)
    progress.end()
    return PlacedLayout(layout_settings(layout), figures, versions(), positions)


def _check_new(where: Path, name: str, known: Mapping[str, object], *, force: bool) -> None:
    if name in known and not force:
        raise UserError(
            f"projection '{where}' has a layout '{name}' already: add {named('force', True)} to "
            f"replace it, or give another name with {named('name')}",
            setting="force",
            value=False,
        )
