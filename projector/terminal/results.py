"""The output of commands about a projection."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from shlex import quote
from shutil import which
from statistics import median
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from projector.layouts.registry import OBJECTIVES
from projector.progress import Progress
from projector.projection.overview import Saved
from projector.sites import MapKey, map_name
from projector.statistics.cross_layer.records import CrossLayerFacts
from projector.statistics.organisation import Organisation, most_organised
from projector.terminal.screen import Screen

# Rows of pairs of layers: of 30 layers there are 435.
_MOST_PAIRS = 8
_PARTNERS_LEGEND = (
    "median    of the best |ρ| of each neuron of the later layer among those of the earlier one\n"
    "95%       the 95th percentile of that\n"
    "rotated   the median among as many random axes of the earlier layer's activations\n"
    "shuffled  the median where the tokens of one of the layers are shuffled\n"
    "above     neurons whose best |ρ| is above that control's 95th percentile; by chance 5%\n"
    "distinct  best partners of those: one neuron may be that of many"
)


def summary(projection: Any, out: Path, layout: str | None = None) -> dict[str, Any]:
    """The JSON object for ``--json``.

    Args:
        layout: the layout of the maps to report; None for the first.
    """
    facts, kept = projection.facts.as_dict(), projection.example_facts
    return {
        "projection": str(out),
        "model": facts["model"],
        "corpus": facts["corpus"],
        "examples": None if kept is None else asdict(kept),
        "layout": projection.layout(layout).settings.as_dict(),
        "layouts": {
            name: {
                "settings": each.settings.as_dict(),
                "maps": {key: figures.as_dict() for key, figures in each.figures.items()},
            }
            for name, each in projection.layouts.items()
        },
        "maps": [
            {"layer": layer, "site": site, **projection.figures(layer, site, layout)}
            for layer, site in projection.maps
        ],
        "most_organised": most_organised(
            {key: projection.facts.maps[map_name(*key)].organisation for key in projection.maps}
        ),
    }


def organisations(
    projection: Saved, folder: Path, progress: Callable[[], AbstractContextManager[Progress]]
) -> dict[MapKey, Organisation | None]:
    """How organised each map is: the saved figures, or else measured from its correlations.

    Args:
        progress: opened only if a map must be measured.
    """
    found = {key: projection.organisation(*key) for key in projection.maps}
    lacking = [key for key in found if found[key] is None and projection.has_statistics_of(*key)]
    if not lacking:
        return found
    from projector.projection.projection import Projection

    loaded = Projection.load(folder)
    with progress() as bars:
        bars.begin("Measuring how organised the maps are", len(lacking), "maps")
        for key in lacking:
            found[key] = loaded.organisation(*key)
            bars.advance(1)
        bars.end()
    return found


def with_organisations(
    value: dict[str, Any], found: Mapping[MapKey, Organisation | None]
) -> dict[str, Any]:
    """Extend the result of :func:`summary` by these figures of each map, and their summary
    sentence.
    """
    maps = []
    for each in value["maps"]:
        known = found[each["layer"], each["site"]]
        if known is not None:
            each = {k: v for k, v in each.items() if k != "organisation_reason"}
            each["organisation"] = asdict(known)
        maps.append(each)
    return {**value, "maps": maps, "most_organised": most_organised(found)}


def show_partners(screen: Screen, facts: CrossLayerFacts) -> None:
    """Show the pairs of layers with the strongest partners, with both controls."""
    shown = facts.strongest(_MOST_PAIRS)
    which = "all pairs of layers"
    if len(shown) < len(facts.pairs):
        which = f"the {len(shown)} strongest of {len(facts.pairs)} pairs of layers"
    screen.say(f"[b]Partners across layers[/b] over {facts.n_tokens:,} tokens: {which}")
    table = Table(header_style="bold", box=SIMPLE_HEAD, padding=(0, 0))
    for title in ("earlier", "later", "median", "95%"):
        table.add_column(title, justify="right", no_wrap=True)
    for titles in (("rotated", "95%", "above", "distinct"), ("shuffled", "95%", "above")):
        for title in titles:
            table.add_column(title, justify="right", no_wrap=True)
    for pair in shown:
        if pair.best is None or pair.rotated is None or pair.shuffled is None:
            continue
        cells = [f"{each:.3f}" for each in (pair.best.median, pair.best.percentile_95)]
        for control in (pair.rotated, pair.shuffled):
            cells += [f"{each:.3f}" for each in (control.median, control.percentile_95)]
            cells.append(f"{control.share_above:.0%}")
            if control is pair.rotated:
                cells.append("" if pair.n_distinct is None else f"{pair.n_distinct:,}")
        table.add_row(str(pair.earlier), str(pair.later), *cells)
    screen.out.print(table)
    screen.say(f"[dim]{_PARTNERS_LEGEND}[/dim]")
    for pair in facts.pairs:
        if pair.reason is not None:
            screen.say(f"[yellow]layers {pair.earlier} and {pair.later}[/yellow]: {pair.reason}")
    above = [pair.rotated.share_above for pair in facts.pairs if pair.rotated is not None]
    if above:
        screen.say(
            f"In the median pair of layers, {median(above):.0%} of neurons have a partner that "
            "exceeds the 95th percentile among random axes; by chance 5% would."
        )


def next_command(projection: Any, out: Path, pictures: list[Path]) -> str:
    """Suggest what to do next with a projection."""
    site = projection.sites[0]
    layers = [layer for layer, s in projection.maps if s == site]
    layer, program = layers[len(layers) // 2], _program()
    if pictures:
        few = len(pictures) <= 3
        names = ", ".join(path.name for path in pictures) if few else "the pictures (.html)"
        then = f"{program} info {quote(str(out))}"
        if all(projection.has_statistics_of(*key) for key in projection.maps):
            record = OBJECTIVES.get(projection.layout().settings.objective)
            made = {each.settings.objective for each in projection.layouts.values()}
            following = [record.then] if record is not None and record.then in OBJECTIVES else []
            left = [each for each in (*following, *OBJECTIVES) if each not in made]
            if left:
                then = f"{program} layout {quote(str(out))} --objective {left[0]}"
        return f"open {names} there in a browser; then try\n  {then}"
    picture = quote(f"{out}-map.html")
    return f"{program} plot {quote(str(out))} --layer {layer} --site {site} --out {picture}"


def _program() -> str:
    """This program as the user can call it again from here."""
    called = Path(sys.argv[0])
    if which("projector") is not None or called.name != "projector":
        return "projector"
    return os.path.relpath(called)
