"""``projector info``, ``layout``, ``relayout`` and ``import``: show and change projections."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from projector.layouts.settings import Layout
from projector.settings import setting
from projector.terminal.commands import Given, Without, command
from projector.terminal.options import ModelOptions, OutOptions, SavedProjection
from projector.terminal.results import (
    next_command,
    organisations,
    show_partners,
    summary,
    with_organisations,
)
from projector.terminal.screen import Screen

if TYPE_CHECKING:
    from projector.projection.overview import Saved
    from projector.statistics.cross_layer.records import CrossLayerFacts


@dataclass(frozen=True)
class AdditionOptions:
    """Options for adding a layout."""

    name: str | None = setting(
        None, help="Name of the layout. By default its settings, such as stress-3d."
    )
    force: bool = setting(False, help="Replace the layout of that name.")


@command
def layout(
    screen: Screen,
    projection_dir: SavedProjection,
    *,
    options: AdditionOptions,
    # Batches are counted while a model runs.
    layout: Annotated[Given[Layout], Without(("accumulate",))],
) -> None:
    """Add a layout to a projection, in place, from its saved correlations and without the model."""
    from projector.projection.relaying import add_layout

    chosen = layout.make()
    with screen.progress() as progress:
        name, projection = add_layout(
            projection_dir, chosen, name=options.name, force=options.force, progress=progress
        )
    screen.say(f"Added layout [b]{escape(name)}[/b] to [b]{escape(str(projection_dir))}[/b]")
    screen.finish(
        {**summary(projection, projection_dir, name), "added": name}, projection, layout=name
    )


@command
def relayout(
    screen: Screen,
    projection_dir: SavedProjection,
    *,
    where: OutOptions,
    # Batches are counted while a model runs.
    layout: Annotated[Given[Layout], Without(("accumulate",))],
) -> None:
    """Make a new projection with other positions from a saved one, without the model."""
    from projector.errors import UserError, named
    from projector.projection.projection import Projection
    from projector.projection.relaying import relayout as make
    from projector.projection.writing import check_out

    chosen = layout.make()
    old = Projection.load(projection_dir)
    check_out(where.out, force=where.force)
    if where.out.resolve() == projection_dir.resolve():
        raise UserError(
            f"{named('out')} is the projection itself: give another folder, or add the layout to "
            "it with `projector layout`",
            setting="out",
            value=str(where.out),
        )
    with screen.progress() as progress:
        projection = make(old, chosen, progress=progress)
        projection.save(where.out, force=where.force, setting="out")
    screen.finish(
        summary(projection, where.out), projection, next_command(projection, where.out, [])
    )


@dataclass(frozen=True)
class ShownLayout:
    """The layout to describe."""

    layout: str | None = setting(None, help="Layout to describe, by name. By default all.")


@command
def info(screen: Screen, projection_dir: SavedProjection, *, shown: ShownLayout) -> None:
    """Describe a projection: its content, its provenance, and how faithful each map is."""
    from projector.projection.overview import read_saved

    projection = read_saved(projection_dir)
    found = organisations(projection, projection_dir, screen.progress)
    value = with_organisations(summary(projection, projection_dir, shown.layout), found)
    partners = _partners(screen, projection)
    screen.describe(projection)
    screen.show_organisation(found)
    if partners is not None:
        show_partners(screen, partners)
    screen.finish(
        value
        | {
            "facts": projection.facts.as_dict(),
            "cross_layer": None if partners is None else partners.as_dict(),
        },
        projection,
        every_map=True,
        layout=shown.layout,
    )


def _partners(screen: Screen, projection: Saved) -> CrossLayerFacts | None:
    """What a projection holds of partners across layers; what can't be read is told."""
    from projector.errors import UserError
    from projector.projection.partners.files import read_partners
    from projector.terminal.options import option_words

    try:
        return read_partners(projection)
    except UserError as error:
        screen.say(
            f"[yellow]without partners across layers[/yellow]: {escape(error.worded(option_words))}"
        )
        return None


@dataclass(frozen=True)
class ImportOptions:
    """Options for importing positions."""

    model: str = setting(
        help="The model of these positions: [b]bundled[/b], a local folder, a .gguf file, or a "
        "hub id."
    )


@command
def import_(
    screen: Screen,
    checkpoint: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="A safetensors file of positions."),
    ],
    *,
    options: ImportOptions,
    where: OutOptions,
    loading: Annotated[ModelOptions, Without(("device", "device_map", "dtype"))],
) -> None:
    """Make a projection from positions that were trained elsewhere."""
    from projector.projection.importing import import_checkpoint
    from projector.projection.writing import check_out

    check_out(where.out, force=where.force)
    with screen.progress() as progress:
        progress.begin("Loading the model", None, "")
        projection = import_checkpoint(
            checkpoint,
            options.model,
            revision=loading.revision,
            trust_remote_code=loading.trust_remote_code,
        )
        progress.end()
    projection.save(where.out, force=where.force, setting="out")
    screen.finish(
        summary(projection, where.out), projection, next_command(projection, where.out, [])
    )
