"""``pruning poles``: find groups of neurons that fire together, judge, label, and keep them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from rich.markup import escape

from projector.layouts.registry import OBJECTIVES
from projector.settings import setting
from projector.terminal.commands import Given, command
from projector.terminal.options import SavedProjection
from projector.terminal.screen import Screen
from pruning.poles.poles import PoleSettings


@dataclass(frozen=True)
class PolesOptions:
    """The maps to find poles in, and how."""

    layer: tuple[int, ...] | None = setting(None, help="Layers, for example 0,3-5. By default all.")
    site: tuple[str, ...] | None = setting(None, help="Sites, comma-separated. By default all.")
    layout: str | None = setting(
        None,
        help="Name of the layout whose maps are read if [b]--space[/b] is [b]positions[/b]. By "
        "default the first.",
    )
    with_controls: bool = setting(True, help="Leave out the controls, which take most of the time.")
    force: bool = setting(False, help="Find poles again that were found before.")


@command
def poles(
    screen: Screen,
    projection: SavedProjection,
    *,
    options: PolesOptions,
    settings: Given[PoleSettings],
) -> None:
    """Find groups of neurons that fire together, compare them with controls, and label them.

    Labels are what the groups fire on. Poles are saved in DIR/poles. Run the same command again to
    find missing ones.
    """
    from pruning.poles.finding_all import PoleRequest, find_all

    request = PoleRequest(
        layers=options.layer,
        sites=options.site,
        **settings.values,
        layout=options.layout,
        with_controls=options.with_controls,
        force=options.force,
    )
    try:
        with screen.progress() as progress:
            found = find_all(projection, request, progress)
    except KeyboardInterrupt:
        screen.say_aside("Stopped. Run the command again to find the rest.")
        raise
    first = found.poles[0].settings
    names = _names(projection, found.poles, options.layout)
    if screen.as_json:
        maps_found = [
            _with_names(one.figures(), of_map)
            for one, of_map in zip(found.poles, names, strict=True)
        ]
        screen.result({"saved": str(found.path), "key": first.key, "maps": maps_found}, "")
        return
    _show(screen, found.poles, names)
    _warn(screen, projection, first.space, options.layout)
    screen.say(f"Wrote [b]{escape(str(found.path))}[/b]")
    screen.say(f"Next: {escape(_next_command(projection, found.poles))}")


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
    from projector.terminal.screen import legend
    from pruning.poles.poles import axes_words, finding_words
    from pruning.terminal.tables import (
        legend_of_labels,
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
    screen.out.print(legend_of_labels(found, names, has_poles=len(found) <= 2))
    reasons = dict.fromkeys(text for one in found for text in one.reasons.values())
    screen.out.print(legend(("–", reason) for reason in reasons))
