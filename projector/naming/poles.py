"""Read the poles in a projection's folder: their members and labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from projector.errors import UserError
from projector.projection.overview import read_saved
from projector.storage.versions import read_json

_FORMAT = "transformer-poles"
# The first version whose poles are numbered as they are now.
_OLDEST = 3
# Spaces that poles are found in, the one whose poles are searched where a map has several first;
# and of each the settings that are usual.
_SPACES = {
    "correlation": {"min_cluster_size": 3, "selection": "leaf"},
    "abs-correlation": {"min_cluster_size": 3, "selection": "leaf"},
    "positions": {"min_cluster_size": 3, "selection": "eom"},
}
_USUAL = {"min_samples": 3, "epsilon": 0.0}


@dataclass(frozen=True)
class SavedPole:
    """A pole as stored in a projection's folder.

    Attributes:
        is_distinct: whether it was judged to be distinct; None if it was not judged.
        is_searched: whether its file is the one that is searched for its map: the file for the
            default settings, or else the first.
    """

    layer: int
    site: str
    number: int
    file: str
    neurons: tuple[int, ...]
    label: str | None
    is_distinct: bool | None
    is_searched: bool


def saved_poles(folder: str | Path) -> Iterator[SavedPole]:
    """Read the poles in a projection's folder; those that are searched come first.

    Files that are damaged, have another format or an older version, or belong to another projection
    or to a replaced layout are skipped.

    Raises:
        UserError: if there is no projection.
    """
    where = Path(folder)
    saved = read_saved(where)
    layouts = {each.metadata.get("layout") for each in saved.layouts.values()}
    files = []
    for path in sorted((where / "poles").glob("*.json")) if (where / "poles").is_dir() else ():
        with suppress(UserError):
            content, _ = read_json(path)
            if not isinstance(content, dict) or content.get("format") != _FORMAT:
                continue
            version, settings = content.get("format_version"), content.get("settings")
            if not isinstance(version, int) or version < _OLDEST or not isinstance(settings, dict):
                continue
            space = settings.get("space")
            if content.get("projection") != saved.fingerprint or space not in _SPACES:
                continue
            if space == "positions" and content.get("layout") not in layouts:
                continue
            usual = _USUAL | _SPACES[space]
            is_usual = all(settings.get(name, value) == value for name, value in usual.items())
            # Its own layout's before those of others, whose names are longer.
            rank = (list(_SPACES).index(space), not is_usual, len(path.name), path.name)
            files.append((rank, f"poles/{path.name}", content))
    seen: set[str] = set()
    for _, file, content in sorted(files, key=lambda each: each[:2]):
        maps = content.get("maps")
        for name, kept in maps.items() if isinstance(maps, Mapping) else ():
            with suppress(KeyError, TypeError, ValueError, AttributeError):
                # All of them are read before one is given: a map is of one file.
                found = _poles_of(kept, file, is_searched=name not in seen)
                seen.add(name)
                yield from found


def _poles_of(kept: Mapping[str, Any], file: str, *, is_searched: bool) -> list[SavedPole]:
    layer, site = int(kept["layer"]), str(kept["site"])
    return [
        SavedPole(
            layer,
            site,
            number,
            file,
            tuple(int(j) for j in pole["neurons"]),
            str(pole["label"]) if pole.get("label") else None,
            pole.get("distinct") if isinstance(pole.get("distinct"), bool) else None,
            is_searched,
        )
        for number, pole in enumerate(kept["poles"])
    ]
