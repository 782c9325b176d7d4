"""What commands say of a projection when they are done."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from shlex import quote
from shutil import which
from typing import Any

from projector.layouts.registry import OBJECTIVES
from projector.progress import Progress
from projector.projection.overview import Saved
from projector.sites import MapKey, map_name
from projector.statistics.organisation import Organisation, most_organised


def summary(projection: Any, out: Path, layout: str | None = None) -> dict[str, Any]:
    """The one object of ``--json``.

    Args:
        layout: whose maps are told of; None is the first.
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
    """How organised each map is: as it was saved, or else measured from its correlations.

    Args:
        progress: opened where there is something to measure.
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
    """What :func:`summary` gave, with these figures of each map, and the sentence of them."""
    maps = []
    for each in value["maps"]:
        known = found[each["layer"], each["site"]]
        if known is not None:
            each = {k: v for k, v in each.items() if k != "organisation_reason"}
            each["organisation"] = asdict(known)
        maps.append(each)
    return {**value, "maps": maps, "most_organised": most_organised(found)}


def next_command(projection: Any, out: Path, pictures: list[Path]) -> str:
    """What a user may do next with a projection."""
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
