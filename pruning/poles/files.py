"""Files that keep poles beside a projection, one for the settings that they were found with.

A file is ``poles/<name of the settings>.json``. Poles of version 1 stand in one file, poles.json,
which is read and never written.
"""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from projector.errors import UserError
from projector.projection.overview import Saved, read_saved
from projector.sites import map_name
from projector.storage.additions import adding
from projector.storage.versions import read_json, upgraded
from pruning.poles.poles import Pole, Poles, PoleSettings

FORMAT = "transformer-poles"
FORMAT_VERSION = 2
POLES_FOLDER = "poles"
# Where version 1 kept the poles of all settings.
OLD_FILE = "poles.json"
_WRONG = (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError)


def poles_file(settings: PoleSettings) -> str:
    """The file of these settings, within the projection's folder."""
    return f"{POLES_FOLDER}/{settings.name}.json"


def check_poles_file(folder: str | Path, settings: PoleSettings) -> None:
    """Raise a UserError if poles can't be saved in this folder, before they are looked for."""
    where = Path(folder)
    _read(where / poles_file(settings), settings, read_saved(where))
    if not os.access(where, os.W_OK | os.X_OK):
        raise UserError(f"'{where}' can't be written to: copy the projection to another folder")


def save_poles(folder: str | Path, poles: Iterable[Poles], belongs_to: str | None = None) -> Path:
    """Add poles beside the projection in ``folder``; returns the file of the first ones.

    Those of equal settings, layer and site are replaced, all others stay, also where two processes
    add at once.

    Args:
        belongs_to: SHA-256 of the ``projection.json`` of the projection that they were found in;
            where another stands there by now, nothing is added.

    Raises:
        UserError: if there is no projection, a file that is there is damaged, or it can't be
            written: then all is as it was.
    """
    where = Path(folder)
    saved = read_saved(where)
    # Settings that mean the same have one file.
    groups: dict[str, list[Poles]] = defaultdict(list)
    for one in poles:
        groups[poles_file(one.settings)].append(one)
    with adding(where, belongs_to=belongs_to or saved.fingerprint) as addition:
        for name, group in groups.items():
            settings = group[0].settings
            maps = dict(_read(where / name, settings, saved)["maps"])
            maps |= {map_name(one.layer, one.site): one.as_dict() for one in group}
            text = _text(_content(settings, saved, maps))
            if addition.read(name) != text.encode():
                addition.write(name, text, force=True)
    return where / next(iter(groups), poles_file(PoleSettings()))


def load_poles(
    folder: str | Path, layer: int, site: str = "mlp_post", settings: PoleSettings | None = None
) -> Poles | None:
    """Poles that :func:`save_poles` kept, or None: none were, or for another projection.

    Raises:
        UserError: if there is no projection, or the file is damaged or of a newer version.
    """
    where, settings = Path(folder), settings or PoleSettings()
    saved, name = read_saved(where), map_name(layer, site)
    for path in (where / poles_file(settings), where / OLD_FILE):
        kept = _read(path, settings, saved)["maps"].get(name)
        if kept is not None:
            try:
                return _from_dict(kept, settings)
            except _WRONG as error:
                raise _damaged(path, name) from error
    return None


def _read(path: Path, settings: PoleSettings, saved: Saved) -> dict[str, Any]:
    """A file's content; of no map where there is none, or it is of another projection."""
    empty = _content(settings, saved, {})
    if not path.exists():
        return empty
    try:
        content, _ = read_json(path)
    except UserError as error:
        raise _damaged(path, "it can't be read as JSON") from error
    content = upgraded(
        content,
        path,
        format_name=FORMAT,
        newest=FORMAT_VERSION,
        upgrades={1: lambda old: _of_version_1(old, settings)},
        remedy="delete it, and find the poles again with `pruning poles`",
    )
    if any(content.get(name) != empty.get(name) for name in ("projection", "layout")):
        return empty
    try:
        for kept in content["maps"].values():
            _rank(kept)
    except (KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, f"{error} is missing or wrong") from error
    return content


def _of_version_1(content: dict[str, Any], settings: PoleSettings) -> dict[str, Any]:
    """What a file of version 1 holds of these settings: it held those of all."""
    try:
        maps = content["results"].get(settings.key, {"maps": {}})["maps"]
    except (KeyError, TypeError, AttributeError):
        # As damage of this version is told.
        maps = None
    return {
        **{name: content.get(name) for name in ("format", "projection")},
        "format_version": 2,
        "maps": maps,
    }


def _content(settings: PoleSettings, saved: Saved, maps: dict[str, Any]) -> dict[str, Any]:
    """A file's content: which projection it belongs to, and of the space of positions, which layout
    of it; None where the layout is the projection's own of version 1."""
    layout = None
    if settings.space == "positions":
        first = next(iter(saved.layouts.values()))
        layout = first.metadata.get("layout")
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "projection": saved.fingerprint,
        "layout": layout,
        # As their name has them.
        "settings": asdict(settings)
        | {
            "min_samples": settings.effective_min_samples,
            "epsilon": abs(float(settings.epsilon)),
        },
        "maps": dict(sorted(maps.items(), key=lambda item: _rank(item[1]))),
    }


def _text(content: dict[str, Any]) -> str:
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    # A list of numbers on a line.
    return re.sub(r"\[[\s\d.,e+-]*\]", lambda found: " ".join(found[0].split()), text) + "\n"


def _from_dict(kept: dict[str, Any], settings: PoleSettings) -> Poles:
    labels = torch.full((kept["n_neurons"],), -1, dtype=torch.int64)
    strengths = torch.zeros(kept["n_neurons"])
    poles = []
    for k, pole in enumerate(kept["poles"]):
        neurons = torch.tensor(pole.pop("neurons"), dtype=torch.int64)
        if neurons.numel() != pole["size"] or neurons.min() < 0 or (labels[neurons] >= 0).any():
            raise ValueError("a pole's neurons")
        labels[neurons] = k
        strengths[neurons] = torch.tensor(pole.pop("strengths"), dtype=torch.float32)
        poles.append(Pole(**pole | {"exemplars": tuple(pole["exemplars"])}))
    return Poles(
        layer=kept["layer"],
        site=kept["site"],
        settings=settings,
        labels=labels,
        strengths=strengths,
        poles=tuple(poles),
        undefined=tuple(kept["undefined"]),
        noise_share=kept["noise_share"],
        validity=kept["validity"],
        reasons=dict(kept["reasons"]),
    )


def _rank(kept: dict[str, Any]) -> tuple[int, str]:
    return kept["layer"], kept["site"]


def _damaged(path: Path, what: str) -> UserError:
    return UserError(
        f"'{path}' is damaged ({what}): delete it, and find the poles again with `pruning poles`"
    )
