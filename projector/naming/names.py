"""Names that the user gave to neurons and poles, in ``labels.json`` in a projection's folder."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from projector.errors import SettingError, UserError
from projector.projection.overview import read_saved
from projector.projection.writing import NAMES_FILE, NAMES_FORMAT
from projector.sites import map_name, map_of
from projector.storage.additions import adding
from projector.storage.entries import Entry
from projector.storage.versions import Upgrade, json_text, read_json, upgraded

FORMAT_VERSION = 1
# Version → what turns what a file of it says into what one of the next does.
UPGRADES: Mapping[int, Upgrade] = {}
MOST_CHARACTERS = 60


@dataclass(frozen=True)
class PoleKey:
    """The identity of a pole, independent of its number.

    Attributes:
        map: its layer and site, ``layers.3.mlp_post``.
        file: the poles file for its settings, relative to the projection's folder.
        neurons: its members, ascending.
    """

    map: str
    file: str
    neurons: tuple[int, ...]

    @classmethod
    def of(cls, layer: int, site: str, file: str, neurons: Collection[int]) -> PoleKey:
        """Create the key of a pole."""
        return cls(map_name(layer, site), file, tuple(sorted(int(j) for j in neurons)))


@dataclass(frozen=True)
class Names:
    """Names that the user gave.

    Attributes:
        neurons: map name → neuron → name.
        poles: pole → name.
    """

    neurons: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    poles: Mapping[PoleKey, str] = field(default_factory=dict)

    def of_neuron(self, layer: int, site: str, neuron: int) -> str | None:
        """A neuron's name; None if it has none."""
        return self.neurons.get(map_name(layer, site), {}).get(neuron)

    def of_pole(self, layer: int, site: str, file: str, neurons: Collection[int]) -> str | None:
        """A pole's name; None if it has none."""
        return self.poles.get(PoleKey.of(layer, site, file, neurons))


def read_names(folder: str | Path) -> Names:
    """Read the names in a projection's folder; empty if there are none, or they belong to another
    projection.

    Raises:
        UserError: if there is no projection, or the file is damaged or has a newer version.
    """
    where = Path(folder)
    if not (where / NAMES_FILE).exists():
        return Names()
    content = _read(where / NAMES_FILE)
    if content.get("projection") != read_saved(where).fingerprint:
        return Names()
    return _names(content, where / NAMES_FILE)


def write_name(
    folder: str | Path,
    text: str | None,
    layer: int,
    site: str,
    *,
    neuron: int | None = None,
    pole: PoleKey | None = None,
) -> Names:
    """Name a neuron or a pole, or remove its name.

    Args:
        text: one line of at most 60 characters; None, or only spaces, removes the name.
        neuron, pole: the neuron or the pole; exactly one of them.

    Returns:
        All names of the projection.

    Raises:
        SettingError: if the text is too long, or the map or neuron doesn't exist.
        UserError: if there is no projection, or the file is damaged or can't be written; the names
            are then unchanged.
    """
    if (neuron is None) == (pole is None):
        raise ValueError("a name belongs to a neuron or a pole")
    name = _checked(text)
    where = Path(folder)
    saved = read_saved(where)
    n_neurons = saved.figures(layer, site).n_neurons
    for each in (neuron,) if pole is None else pole.neurons:
        if each is None or not 0 <= each < n_neurons:
            raise SettingError("neuron", each, "is not in this map", f"give 0 to {n_neurons - 1:,}")
    with adding(where, belongs_to=saved.fingerprint) as addition:
        names = Names()
        if addition.has(NAMES_FILE):
            content = _read(where / NAMES_FILE)
            if content.get("projection") == saved.fingerprint:
                names = _names(content, where / NAMES_FILE)
        names = _changed(names, name, layer, site, neuron, pole)
        text_now = json_text(_content(names, saved.fingerprint))
        if names.neurons or names.poles:
            if addition.read(NAMES_FILE) != text_now.encode():
                addition.write(NAMES_FILE, text_now, force=True)
        else:
            addition.remove(NAMES_FILE)
    return names


def _checked(text: str | None) -> str:
    """A name on one line, without signs that can't be seen."""
    kept = "".join(
        " " if sign.isspace() else sign
        for sign in text or ""
        if sign.isspace() or unicodedata.category(sign)[0] != "C"
    )
    name = " ".join(kept.split())
    if len(name) > MOST_CHARACTERS:
        raise SettingError(
            "name",
            name,
            f"has {len(name)} characters",
            f"give at most {MOST_CHARACTERS}",
        )
    return name


def _changed(
    names: Names, name: str, layer: int, site: str, neuron: int | None, pole: PoleKey | None
) -> Names:
    neurons = {key: dict(found) for key, found in names.neurons.items()}
    poles = dict(names.poles)
    if pole is not None:
        poles.pop(pole, None)
        if name:
            poles[pole] = name
    elif neuron is not None:
        of_map = neurons.setdefault(map_name(layer, site), {})
        of_map.pop(neuron, None)
        if name:
            of_map[neuron] = name
    return Names({key: found for key, found in neurons.items() if found}, poles)


def _content(names: Names, fingerprint: str) -> dict[str, Any]:
    poles = sorted(
        names.poles.items(), key=lambda item: (item[0].map, item[0].file, item[0].neurons)
    )
    return {
        "format": NAMES_FORMAT,
        "format_version": FORMAT_VERSION,
        "projection": fingerprint,
        "neurons": {
            key: {str(j): names.neurons[key][j] for j in sorted(names.neurons[key])}
            for key in sorted(names.neurons)
        },
        "poles": [
            {"map": pole.map, "file": pole.file, "neurons": list(pole.neurons), "name": name}
            for pole, name in poles
        ],
    }


def _read(path: Path) -> dict[str, Any]:
    content, _ = read_json(path)
    return upgraded(
        content,
        path,
        format_name=NAMES_FORMAT,
        newest=FORMAT_VERSION,
        upgrades=UPGRADES,
        remedy="remove it",
        if_foreign="move it to another folder",
    )


def _names(content: dict[str, Any], path: Path) -> Names:
    try:
        entry = Entry(content)
        maps = entry.entry("neurons")
        for each in (*maps, *(pole["map"] for pole in content["poles"])):
            map_of(each)
        neurons = {
            key: {int(j): str(maps.entry(key).text(j)) for j in maps.entry(key)} for key in maps
        }
        poles = {}
        for each in content["poles"]:
            pole = Entry(each)
            members = tuple(int(j) for j in each["neurons"])
            poles[PoleKey(pole.text("map"), pole.text("file"), members)] = pole.text("name")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"'{path}' is damaged ({error}): remove it") from error
    return Names(neurons, poles)
