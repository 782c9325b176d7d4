"""Poles that are kept beside a projection, read as data: their members and labels."""

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
# Spaces that poles are found in, the one whose poles are searched where a map has several first.
_SPACES = ("correlation", "abs-correlation", "positions")


@dataclass(frozen=True)
class SavedPole:
    """A pole as a file beside the projection has it."""

    layer: int
    site: str
    number: int
    file: str
    neurons: tuple[int, ...]
    label: str | None


def saved_poles(folder: str | Path) -> Iterator[SavedPole]:
    """The poles that are kept beside a projection, read as data; of each map those of one file.

    Files that are damaged, of other formats or of another projection are passed over.

    Raises:
        UserError: if there is no projection.
    """
    where = Path(folder)
    fingerprint = read_saved(where).fingerprint
    files = []
    for path in sorted((where / "poles").glob("*.json")) if (where / "poles").is_dir() else ():
        with suppress(UserError):
            content, _ = read_json(path)
            if not isinstance(content, dict) or content.get("format") != _FORMAT:
                continue
            space = (content.get("settings") or {}).get("space")
            if content.get("projection") == fingerprint and space in _SPACES:
                files.append((_SPACES.index(space), f"poles/{path.name}", content))
    seen: set[str] = set()
    for _, file, content in sorted(files, key=lambda each: each[:2]):
        maps = content.get("maps")
        for name, kept in maps.items() if isinstance(maps, Mapping) else ():
            with suppress(KeyError, TypeError, ValueError, AttributeError):
                if name not in seen:
                    # All of them are read before one is given: a map is of one file.
                    found = _poles_of(kept, file)
                    seen.add(name)
                    yield from found


def _poles_of(kept: Mapping[str, Any], file: str) -> list[SavedPole]:
    layer, site = int(kept["layer"]), str(kept["site"])
    return [
        SavedPole(
            layer,
            site,
            number,
            file,
            tuple(int(j) for j in pole["neurons"]),
            str(pole["label"]) if pole.get("label") else None,
        )
        for number, pole in enumerate(kept["poles"])
    ]
