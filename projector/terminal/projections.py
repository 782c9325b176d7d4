"""``projector info``, ``relayout`` and ``import``: what is made of a projection, or becomes one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from projector.layouts.settings import Layout
from projector.settings import setting
from projector.terminal.commands import Given, Without, command
from projector.terminal.options import ModelOptions, OutOptions, SavedProjection
from projector.terminal.results import next_command, summary
from projector.terminal.screen import Screen


@command
def relayout(
    screen: Screen,
    projection_dir: SavedProjection,
    *,
    where: OutOptions,
    # Batches are counted while a model runs.
    layout: Annotated[Given[Layout], Without(("accumulate",))],
) -> None:
    """Make new positions from a projection's saved correlations, without the model."""
    from projector.errors import UserError, named
    from projector.projection.projection import Projection, check_out
    from projector.projection.relaying import relayout as make

    chosen = layout.make()
    old = Projection.load(projection_dir)
    check_out(where.out, force=where.force)
    if where.out.resolve() == projection_dir.resolve():
        raise UserError(f"{named('out')} is the projection itself: give another folder")
    with screen.progress() as progress:
        projection = make(old, chosen, progress=progress)
        projection.save(where.out, force=where.force)
    screen.finish(
        summary(projection, where.out), projection, next_command(projection, where.out, [])
    )


@command
def info(screen: Screen, projection_dir: SavedProjection) -> None:
    """Say what a projection holds, where it is from, and how far each map can be trusted."""
    from projector.projection.overview import read_saved

    projection = read_saved(projection_dir)
    screen.describe(projection)
    screen.finish(
        summary(projection, projection_dir) | {"facts": projection.facts.as_dict()},
        projection,
        every_map=True,
    )


@dataclass(frozen=True)
class ImportOptions:
    """Whose positions are imported."""

    model: str = setting(help="The model they belong to: a folder or a hub id.")


@command
def import_(
    screen: Screen,
    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="A safetensors file of positions, written by Accelerate."
        ),
    ],
    *,
    options: ImportOptions,
    where: OutOptions,
    loading: Annotated[ModelOptions, Without(("device", "device_map", "dtype"))],
) -> None:
    """Make a projection of positions that were trained elsewhere."""
    from projector.projection.importing import import_checkpoint
    from projector.projection.projection import check_out

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
    projection.save(where.out, force=where.force)
    screen.finish(
        summary(projection, where.out), projection, next_command(projection, where.out, [])
    )
