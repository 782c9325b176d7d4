"""``pruning poles``: find groups of neurons that fire together, and keep them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from projector.layouts.registry import OBJECTIVES
from projector.terminal.options import parse_layers, parse_sites
from projector.terminal.screen import Screen
from pruning.terminal.options import Json

ProjectionArgument = Annotated[Path, typer.Argument(metavar="DIR", help="A saved projection.")]
Layer = Annotated[
    str | None, typer.Option(help="For example 0,3-5. All by default.", show_default=False)
]
Space = Annotated[
    str,
    typer.Option(
        help="Where neurons are near one another: [b]positions[/b] on the map, "
        "[b]correlation[/b], or [b]abs-correlation[/b]: anti-correlated ones too."
    ),
]
MinSamples = Annotated[
    int | None,
    typer.Option(
        help="Neighbours that make a place dense; a higher number leaves more neurons as noise. "
        "By default as --min-cluster-size.",
        show_default=False,
    ),
]
LayoutName = Annotated[
    str | None,
    typer.Option(
        "--layout",
        metavar="NAME",
        help="The layout whose maps [b]positions[/b] reads. The first by default.",
        show_default=False,
    ),
]
Selection = Annotated[
    str,
    typer.Option(help="[b]eom[/b]: poles that last as density rises. [b]leaf[/b]: smallest."),
]


def poles(
    projection_dir: ProjectionArgument,
    layer: Layer = None,
    site: Annotated[str, typer.Option(help="Comma-separated.")] = "mlp_post",
    space: Space = "positions",
    min_cluster_size: Annotated[int, typer.Option(help="Fewest neurons of a pole.")] = 3,
    min_samples: MinSamples = None,
    selection: Selection = "eom",
    epsilon: Annotated[float, typer.Option(help="Poles closer than this are one.")] = 0.0,
    layout: LayoutName = None,
    as_json: Json = False,
) -> None:
    """Find groups of neurons that fire together, and keep them in DIR, in the folder poles."""
    screen = Screen(as_json)
    with screen.errors():
        from projector.projection.overview import read_saved
        from projector.projection.projection import Projection
        from pruning.poles.files import check_poles_file, save_poles
        from pruning.poles.finding import choose_maps, find_poles
        from pruning.poles.poles import PoleSettings

        settings = PoleSettings(space, min_cluster_size, min_samples, selection, epsilon)
        saved = read_saved(projection_dir)
        projection = Projection.load(projection_dir)
        maps = choose_maps(projection, parse_layers(layer, "layer"), parse_sites(site) or ())
        check_poles_file(projection_dir, settings, layout)
        with screen.progress() as progress:
            progress.begin("Finding poles", len(maps), "maps")
            found = []
            for one_layer, one_site in maps:
                found.append(find_poles(projection, one_layer, one_site, settings, layout))
                progress.advance(1)
        path = save_poles(projection_dir, found, saved, layout)
        if as_json:
            maps_found = [one.figures() for one in found]
            screen.result({"saved": str(path), "key": settings.key, "maps": maps_found}, "")
            return
        _show(screen, found)
        record = OBJECTIVES.get(projection.layout(layout).settings.objective)
        if space == "positions" and record is not None and record.evenly:
            screen.say(
                f"[yellow]{escape(record.name)} map[/yellow]: {escape(record.evenly)}: "
                "take --space correlation"
            )
        screen.say(f"Wrote [b]{escape(str(path))}[/b]")
        if len(found) > 2:
            screen.say("Next: the same with --layer and one number shows that layer's poles")


def _show(screen: Screen, found: list[Any]) -> None:
    """One table of all maps; of one or two maps, the single poles first."""
    from pruning.terminal.tables import POLE_LEGEND, pole_table, poles_legend, poles_table

    for one in found if len(found) <= 2 else ():
        screen.say(f"[b]layer {one.layer} {escape(one.site)}[/b]")
        if one.poles:
            screen.out.print(pole_table(one))
    screen.out.print(poles_table(found))
    screen.say(poles_legend(found[0]))
    if len(found) <= 2:
        screen.say(POLE_LEGEND)
    for reason in dict.fromkeys(text for one in found for text in one.reasons.values()):
        screen.say(f"[dim]–[/dim]         [dim]{escape(reason)}[/dim]")
