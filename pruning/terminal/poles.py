"""``pruning poles``: find groups of neurons that fire together, judge, label, and keep them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer
from rich.markup import escape

from projector.layouts.registry import OBJECTIVES
from projector.terminal.options import parse_layers, parse_sites
from projector.terminal.screen import Screen
from pruning.terminal.options import Json

ProjectionArgument = Annotated[Path, typer.Argument(metavar="DIR", help="A saved projection.")]
Layer = Annotated[
    str | None, typer.Option(help="Layers, for example 0,3-5. All by default.", show_default=False)
]
Site = Annotated[
    str | None, typer.Option(help="Sites, comma-separated. All by default.", show_default=False)
]
Space = Annotated[
    str | None,
    typer.Option(
        help="Distances to cluster: [b]correlation[/b], [b]abs-correlation[/b] (anti-correlated "
        "neurons are close too), or [b]positions[/b] on the map. By default correlation, and "
        "positions where the projection keeps no statistics.",
        show_default=False,
    ),
]
MinSize = Annotated[
    int | None,
    typer.Option(
        "--min-cluster-size",
        help="Minimum pole size, in neurons. By default 3.",
        show_default=False,
    ),
]
MinSamples = Annotated[
    int | None,
    typer.Option(
        help="Number of neighbours that define density; a higher number leaves more neurons as "
        "noise. By default as --min-cluster-size.",
        show_default=False,
    ),
]
Selection = Annotated[
    str | None,
    typer.Option(
        help="[b]leaf[/b]: the smallest groups. [b]eom[/b]: those that last as density rises. By "
        "default leaf, and eom in space positions.",
        show_default=False,
    ),
]
Epsilon = Annotated[
    float | None,
    typer.Option(help="Merge poles closer than this. By default 0.", show_default=False),
]
LayoutName = Annotated[
    str | None,
    typer.Option(
        "--layout",
        metavar="NAME",
        help="The layout whose maps are read, in space [b]positions[/b]. The first by default.",
        show_default=False,
    ),
]
WithControls = Annotated[
    bool,
    typer.Option(" /--no-controls", help="Leave out the controls, which take most of the time."),
]
Force = Annotated[bool, typer.Option("--force", help="Find poles again that were found before.")]


def poles(
    projection_dir: ProjectionArgument,
    layer: Layer = None,
    site: Site = None,
    space: Space = None,
    min_cluster_size: MinSize = None,
    min_samples: MinSamples = None,
    selection: Selection = None,
    epsilon: Epsilon = None,
    layout: LayoutName = None,
    controls: WithControls = True,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Find groups of neurons that fire together, compare them with controls, and label them.

    Labels are what the groups fire on. Poles are saved in DIR/poles. Run the same command again to
    find missing ones.
    """
    screen = Screen(as_json)
    with screen.errors():
        from pruning.poles.finding_all import PoleRequest, find_all

        request = PoleRequest(
            layers=parse_layers(layer, "layer"),
            sites=parse_sites(site),
            space=space,
            min_cluster_size=min_cluster_size,
            min_samples=min_samples,
            selection=selection,
            epsilon=epsilon,
            layout=layout,
            with_controls=controls,
            force=force,
        )
        try:
            with screen.progress() as progress:
                found = find_all(projection_dir, request, progress)
        except KeyboardInterrupt:
            screen.say_aside("Stopped. Run the command again to find the rest.")
            raise
        first = found.poles[0].settings
        names = _names(projection_dir, found.poles, layout)
        if as_json:
            maps_found = [
                _with_names(one.figures(), of_map)
                for one, of_map in zip(found.poles, names, strict=True)
            ]
            screen.result({"saved": str(found.path), "key": first.key, "maps": maps_found}, "")
            return
        _show(screen, found.poles, names)
        _warn(screen, projection_dir, first.space, layout)
        screen.say(f"Wrote [b]{escape(str(found.path))}[/b]")
        screen.say(f"Next: {escape(_next_command(projection_dir, found.poles))}")


def _names(folder: Path, found: Sequence[Any], layout: str | None) -> list[list[str | None]]:
    """Of each map the names that the user gave its poles."""
    from projector.naming.names import read_names
    from projector.projection.overview import read_saved
    from pruning.poles.files import path_of_poles

    names, saved = read_names(folder), read_saved(folder)
    named = []
    for one in found:
        file = path_of_poles(folder, one.settings, saved, layout).relative_to(folder).as_posix()
        members = [(one.labels == k).nonzero()[:, 0].tolist() for k in range(len(one.poles))]
        named.append([names.of_pole(one.layer, one.site, file, each) for each in members])
    return named


def _with_names(figures: dict[str, Any], names: Sequence[str | None]) -> dict[str, Any]:
    """What a map's poles are, each with the user's name, None where it was given none."""
    poles = zip(figures["poles"], names, strict=True)
    return figures | {"poles": [pole | {"name": name} for pole, name in poles]}


def _warn(screen: Screen, folder: Path, space: str, layout: str | None) -> None:
    """Say what poles on a map of this objective mean."""
    from projector.projection.overview import read_saved

    record = OBJECTIVES.get(read_saved(folder).layout(layout).settings.objective)
    if space == "positions" and record is not None and record.evenly:
        screen.say(
            f"[yellow]{escape(record.name)} map[/yellow]: {escape(record.evenly)}: use --space "
            "correlation"
        )


def _next_command(folder: Path, found: Sequence[Any]) -> str:
    """What one would look at next."""
    if len(found) <= 2:
        return f"projector dashboard {quote(str(folder))}"
    best = max(found, key=lambda one: (one.n_distinct or 0, len(one.poles)))
    return (
        f"pruning poles {quote(str(folder))} --layer {best.layer} --site {best.site} "
        "lists the poles of that map"
    )


def _show(screen: Screen, found: Sequence[Any], names: Sequence[Sequence[str | None]]) -> None:
    """One table of all maps; of one or two maps, the single poles first."""
    from pruning.poles.poles import axes_words, finding_words
    from pruning.terminal.tables import (
        legend,
        legend_of_maps,
        legend_of_poles,
        pole_table,
        poles_table,
    )

    width = screen.out.width
    for one, of_map in zip(found, names, strict=True) if len(found) <= 2 else ():
        words = "; ".join(filter(None, (finding_words(one), axes_words(one))))
        screen.say(f"[b]layer {one.layer} {escape(one.site)}[/b]" + (f": {words}" if words else ""))
        if one.poles:
            screen.out.print(pole_table(one, width, of_map))
    if len(found) <= 2:
        screen.out.print(legend_of_poles(found[0], width))
    screen.out.print(poles_table(found, width, names))
    screen.out.print(legend_of_maps(found, width))
    reasons = dict.fromkeys(text for one in found for text in one.reasons.values())
    screen.out.print(legend(("–", reason) for reason in reasons))
