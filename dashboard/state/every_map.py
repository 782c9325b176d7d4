"""Data of all maps of a projection at once, kept on the shelf."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from dashboard.overview import Flat, flatten
from dashboard.state.loading import (
    kept,
    known_poles,
    of_projection,
    projection_at,
    saved_poles_at,
    stamp_of_projection,
)
from dashboard.state.shelf import Key, shelf
from projector.errors import UserError
from projector.projection.projection import Projection
from projector.sites import MapKey
from projector.statistics.organisation import Organisation
from pruning.poles.poles import Poles, PoleSettings, usual_settings


def small_maps_at(path: Path, layout: str) -> dict[MapKey, Flat]:
    """Every map of a layout for a small picture."""

    def make(projection: Projection) -> dict[MapKey, Flat]:
        return {key: flatten(projection.positions(*key, layout)) for key in projection.maps}

    return of_projection("small maps", path, layout, make=make)


def organisation_known(path: Path) -> dict[MapKey, Organisation]:
    """How organised the maps are, where that is saved or was measured since."""
    found = {}
    projection = projection_at(path)
    for key in projection.maps:
        known = projection.figures(*key).map.organisation or shelf().peek(
            _organisation_key(path, key)
        )
        if known is not None:
            found[key] = known
    return found


def measure_organisation_at(path: Path, key: MapKey) -> Organisation | None:
    """Measure how organised one map is, from its statistics; needs a matrix of ρ."""

    def make() -> Organisation | None:
        return projection_at(path).organisation(*key)

    return kept(_organisation_key(path, key), make)


def _organisation_key(path: Path, key: MapKey) -> Key:
    return ("organisation", path, stamp_of_projection(path), *key)


def every_pole_at(
    path: Path, layout: str, settings_of: Callable[[int, str], PoleSettings]
) -> dict[MapKey, Poles]:
    """The known poles of all maps.

    Args:
        settings_of: gives the settings for a layer and site.
    """
    found = _saved_poles(path, layout, settings_of)
    for layer, site in projection_at(path).maps:
        if (layer, site) not in found:
            poles = known_poles(path, layer, site, layout, settings_of(layer, site))
            if poles is not None:
                found[layer, site] = poles
    return found


def maps_without_poles(path: Path) -> list[MapKey]:
    """Maps whose usual poles are not saved yet, or were not compared with controls."""
    projection = projection_at(path)
    usual = partial(usual_settings, projection)
    found: dict[MapKey, Poles] = {}
    # A page that reads the poles reports a damaged file.
    with suppress(UserError):
        found = _saved_poles(path, projection.layout_name(), usual)
    return [
        key
        for key in projection.maps
        if key not in found
        or (found[key].controls is None and found[key].settings.space != "positions")
    ]


def _saved_poles(
    path: Path, layout: str, settings_of: Callable[[int, str], PoleSettings]
) -> dict[MapKey, Poles]:
    """Poles that are saved with the projection, each map with its own settings."""
    files: dict[PoleSettings, dict[MapKey, Poles]] = {}
    found = {}
    for key in projection_at(path).maps:
        settings = settings_of(*key)
        if settings not in files:
            files[settings] = saved_poles_at(path, layout, settings)
        if key in files[settings]:
            found[key] = files[settings][key]
    return found
