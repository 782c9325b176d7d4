"""``pruning poles``: find groups of neurons that fire together, judge, label, and keep them."""

from __future__ import annotations

from collections.abc import Sequence
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
Site = Annotated[
    str | None, typer.Option(help="Comma-separated. All by default.", show_default=False)
]
Space = Annotated[
    str | None,
    typer.Option(
        help="Where neurons are near one another: [b]correlation[/b], [b]abs-correlation[/b] "
        "(anti-correlated ones too), or [b]positions[/b] on the map. By default correlation, and "
        "positions where the projection keeps no statistics.",
        show_default=False,
    ),
]
MinSize = Annotated[
    int | None,
    typer.Option(
        "--min-cluster-size", help="Fewest neurons of a pole. By default 3.", show_default=False
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
    typer.Option(help="Poles closer than this are one. By default 0.", show_default=False),
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
Force = Annotated[bool, typer.Option("--force", help="Find anew what is there already.")]


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
    """Find groups of neurons that fire together, beside controls, and say what they fire on.

    They are kept in DIR, in the folder poles. The same command again finds what is missing.
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
            screen.say_aside("what was found is kept: the same command finds the rest")
            raise
        first = found.poles[0].settings
        if as_json:
            maps_found = [one.figures() for one in found.poles]
            screen.result({"saved": str(found.path), "key": first.key, "maps": maps_found}, "")
            return
        _show(screen, found.poles)
        _warn(screen, projection_dir, first.space, layout)
        screen.say(f"Wrote [b]{escape(str(found.path))}[/b]")
        screen.say(f"Next: {escape(_next_command(projection_dir, found.poles))}")


def _warn(screen: Screen, folder: Path, space: str, layout: str | None) -> None:
    """Say what poles on a map of this objective mean."""
    from projector.projection.overview import read_saved

    record = OBJECTIVES.get(read_saved(folder).layout(layout).settings.objective)
    if space == "positions" and record is not None and record.evenly:
        screen.say(
            f"[yellow]{escape(record.name)} map[/yellow]: {escape(record.evenly)}: "
            "take --space correlation"
        )


def _next_command(folder: Path, found: Sequence[Any]) -> str:
    """What one would look at next."""
    if len(found) <= 2:
        return f"streamlit run dashboard -- --projection {folder}"
    best = max(found, key=lambda one: (one.n_distinct or 0, len(one.poles)))
    return (
        f"pruning poles {folder} --layer {best.layer} --site {best.site} "
        "lists the poles of that map"
    )


def _show(screen: Screen, found: Sequence[Any]) -> None:
    """One table of all maps; of one or two maps, the single poles first."""
    from pruning.poles.poles import finding_words
    from pruning.terminal.tables import (
        legend,
        legend_of_maps,
        legend_of_poles,
        pole_table,
        poles_table,
    )

    width = screen.out.width
    for one in found if len(found) <= 2 else ():
        words = finding_words(one)
        screen.say(f"[b]layer {one.layer} {escape(one.site)}[/b]" + (f": {words}" if words else ""))
        if one.poles:
            screen.out.print(pole_table(one, width))
    if len(found) <= 2:
        screen.out.print(legend_of_poles(found[0], width))
    screen.out.print(poles_table(found, width))
    screen.out.print(legend_of_maps(found, width))
    reasons = dict.fromkeys(text for one in found for text in one.reasons.values())
    screen.out.print(legend(("–", reason) for reason in reasons))
