"""Keep poles in files of a projection's folder, one file for each choice of settings.

A file is ``poles/<name of the settings>.json``; for poles on the map of a layout other than the
projection's first, ``poles/<name of the settings>-on-<name of the layout>.json``. Poles of version
1 are in one file, poles.json, which is read and never written.
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
from projector.projection.overview import Saved, SavedLayout, read_saved
from projector.sites import MapKey, map_name
from projector.storage.additions import adding
from projector.storage.entries import Wrong
from projector.storage.versions import read_json, upgraded
from pruning.poles.poles import (
    ON_THE_MAP,
    Control,
    Controls,
    Pole,
    Poles,
    PoleSettings,
    by_margin,
    margin_of,
)

FORMAT = "transformer-poles"
FORMAT_VERSION = 3
POLES_FOLDER = "poles"
# The file in which version 1 kept the poles of all settings.
OLD_FILE = "poles.json"
# The reason for figures that version 2 doesn't have.
OLDER = "an older version found these poles: `pruning poles` completes them"
_OF_VERSION_3 = ("label", "distinct", "beyond_spectrum", "axis")
_BOTH = ("shuffled", "same_spectrum")
_REMEDY = "delete it and find the poles again with `pruning poles`"
_WRONG = (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError)


def poles_file(settings: PoleSettings, layout: str | None = None) -> str:
    """The file for these settings, within the projection's folder.

    Args:
        layout: the layout's name, if it isn't the projection's first. All layouts share poles in
            the spaces of ρ.
    """
    own = f"-on-{layout}" if layout is not None and settings.space == "positions" else ""
    return f"{POLES_FOLDER}/{settings.name}{own}.json"


def check_poles_file(folder: str | Path, settings: PoleSettings, layout: str | None = None) -> None:
    """Raise a UserError if poles can't be saved in this folder; call it before finding them."""
    where = Path(folder)
    saved = read_saved(where)
    saved.layout_name(layout)
    _read(where / _file_of(settings, saved, layout), settings, saved, layout)
    if not os.access(where, os.W_OK | os.X_OK):
        raise UserError(f"'{where}' can't be written to: copy the projection to another folder")


def save_poles(
    folder: str | Path,
    poles: Iterable[Poles],
    belongs_to: Saved | None = None,
    layout: str | None = None,
) -> Path:
    """Add poles to the projection in ``folder``; return the file of the first ones.

    Poles with equal settings, layer and site are replaced; all others stay, also if two processes
    add poles at once.

    Args:
        belongs_to: the result of :func:`projector.projection.overview.read_saved` before the poles
            were found. If the folder holds another projection now or, for poles on the map, another
            layout of that name, nothing is added. None takes what the folder holds now.
        layout: the layout on whose maps they were found; None is the projection's first.

    Raises:
        UserError: if there is no projection or no such layout, either was replaced, or the file is
            damaged or can't be written. Nothing has changed then.
    """
    where, poles = Path(folder), tuple(poles)
    fingerprint = None if belongs_to is None else belongs_to.fingerprint
    with adding(where, belongs_to=fingerprint) as addition:
        saved = read_saved(where)
        if belongs_to is not None:
            layout = belongs_to.layout_name(layout)
            if any(one.settings.space == "positions" for one in poles):
                _check_same_layout(belongs_to, saved, layout)
        # Settings with the same meaning share one file.
        groups: dict[str, list[Poles]] = defaultdict(list)
        for one in poles:
            groups[_file_of(one.settings, saved, layout)].append(one)
        for name, group in groups.items():
            settings = group[0].settings
            maps = dict(_read(where / name, settings, saved, layout)["maps"])
            maps |= {map_name(one.layer, one.site): one.as_dict() for one in group}
            text = _text(_content(settings, saved, layout, maps))
            if addition.read(name) != text.encode():
                addition.write(name, text, force=True)
    return where / next(iter(groups), poles_file(PoleSettings()))


def load_poles(
    folder: str | Path,
    layer: int,
    site: str = "mlp_post",
    settings: PoleSettings | None = None,
    layout: str | None = None,
) -> Poles | None:
    """Load poles that :func:`save_poles` kept; None if there are none for this projection and
    layout.

    Args:
        layout: the layout on whose maps they were found; None is the projection's first. It makes
            no difference in the spaces of ρ.

    Raises:
        UserError: if there is no projection or no such layout, or the file is damaged or of a newer
            version.
    """
    return _load(Path(folder), settings or PoleSettings(), layout, (layer, site)).get((layer, site))


def load_every_pole(
    folder: str | Path, settings: PoleSettings | None = None, layout: str | None = None
) -> dict[MapKey, Poles]:
    """Load the poles of all maps that were kept; see :func:`load_poles`."""
    return _load(Path(folder), settings or PoleSettings(), layout)


def _load(
    where: Path,
    settings: PoleSettings,
    layout: str | None,
    only: MapKey | None = None,
) -> dict[MapKey, Poles]:
    """Load poles with these settings on this layout, of one map or of all."""
    saved = read_saved(where)
    saved.layout_name(layout)
    found: dict[MapKey, Poles] = {}
    for path in (where / _file_of(settings, saved, layout), where / OLD_FILE):
        for name, kept in _read(path, settings, saved, layout)["maps"].items():
            key = _rank(kept)
            if key in found or only not in (None, key):
                continue
            try:
                found[key] = _from_dict(kept, settings)
            except _WRONG as error:
                raise _damaged(path, name) from error
    return found


def path_of_poles(
    folder: str | Path, settings: PoleSettings, saved: Saved, layout: str | None = None
) -> Path:
    """The path of the poles with these settings on this layout.

    Args:
        saved: overview of the folder's projection.
    """
    return Path(folder) / _file_of(settings, saved, layout)


def _file_of(settings: PoleSettings, saved: Saved, layout: str | None) -> str:
    """The file for these settings and this layout, whether or not the layout is named."""
    if settings.space != "positions":
        return poles_file(settings)
    name = saved.layout_name(layout)
    return poles_file(settings, None if name == saved.layout_name() else name)


def _check_same_layout(before: Saved, now: Saved, name: str) -> None:
    """Raise a UserError if the layout that poles were found on was replaced."""
    there = now.layouts.get(name)
    if there is None or _hash_of(there) != _hash_of(before.layouts[name]):
        raise UserError(
            f"layout '{name}' of '{now.folder}' was replaced while this command ran, so its poles "
            "don't belong there any more: run the command again"
        )


def _hash_of(layout: SavedLayout) -> str | None:
    """The hash of a layout, which differs between layouts of the same name; None in version 1."""
    return layout.metadata.get("layout")


def _read(path: Path, settings: PoleSettings, saved: Saved, layout: str | None) -> dict[str, Any]:
    """A file's content; no maps if it is missing or belongs to another projection or layout."""
    empty = _content(settings, saved, layout, {})
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
        upgrades={1: lambda old: _of_version_1(old, settings), 2: _of_version_2},
        remedy=_REMEDY,
        if_foreign="move it to another folder",
    )
    if any(content.get(name) != empty.get(name) for name in ("projection", "layout")):
        return empty
    if content.get("settings") != empty["settings"]:
        raise _damaged(path, "its settings don't match its name")
    try:
        for kept in content["maps"].values():
            _rank(kept)
    except (KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, f"{error} is missing or wrong") from error
    return content


def _of_version_1(content: dict[str, Any], settings: PoleSettings) -> dict[str, Any]:
    """The poles with these settings in a file of version 1, which holds all settings."""
    try:
        maps = dict(content["results"].get(settings.key, {"maps": {}})["maps"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Wrong("results is missing or wrong") from error
    return {
        **{name: content.get(name) for name in ("format", "projection")},
        "format_version": 2,
        "settings": _plain(settings),
        "maps": maps,
    }


def _of_version_2(content: dict[str, Any]) -> dict[str, Any]:
    """Upgrade from version 2, which has no controls or labels, and numbers poles by size."""
    maps = {}
    for name, kept in content["maps"].items():
        poles = [pole | dict.fromkeys(_OF_VERSION_3) for pole in kept["poles"]]
        order = by_margin(
            [margin_of(_figures(pole), content["settings"]["space"]) for pole in poles]
        )
        number = {old: new for new, old in enumerate(order)}
        poles = [poles[old] | {"opposite": number.get(poles[old]["opposite"])} for old in order]
        on_map = content["settings"]["space"] == "positions"
        reasons = {"controls": ON_THE_MAP if on_map else OLDER, "label": OLDER}
        maps[name] = kept | {
            "poles": poles,
            "controls": None,
            "reasons": kept["reasons"] | reasons,
        }
    return content | {"format_version": 3, "maps": maps}


def _figures(pole: dict[str, Any]) -> Pole:
    """A pole without its neurons."""
    figures = {name: value for name, value in pole.items() if name not in ("neurons", "strengths")}
    return Pole(**figures | {"exemplars": tuple(pole["exemplars"])})


def _controls(kept: dict[str, Any] | None) -> Controls | None:
    return None if kept is None else Controls(*(Control(**kept[each]) for each in _BOTH))


def _content(
    settings: PoleSettings, saved: Saved, layout: str | None, maps: dict[str, Any]
) -> dict[str, Any]:
    """A file's content, with its projection and, in the space of positions, its layout; None for
    the layout of a version 1 projection.
    """
    on_map = settings.space == "positions"
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "projection": saved.fingerprint,
        "layout": _hash_of(saved.layouts[saved.layout_name(layout)]) if on_map else None,
        "settings": _plain(settings),
        "maps": dict(sorted(maps.items(), key=lambda item: _rank(item[1]))),
    }


def _plain(settings: PoleSettings) -> dict[str, Any]:
    """Settings as in their name: equal for settings with the same meaning."""
    return asdict(settings) | {
        "min_samples": settings.effective_min_samples,
        "epsilon": abs(float(settings.epsilon)),
    }


def _text(content: dict[str, Any]) -> str:
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    # Each list of numbers is on one line.
    return re.sub(r"\[[\s\d.,e+-]*\]", lambda found: " ".join(found[0].split()), text) + "\n"


def _from_dict(kept: dict[str, Any], settings: PoleSettings) -> Poles:
    labels = torch.full((kept["n_neurons"],), -1, dtype=torch.int64)
    strengths = torch.zeros(kept["n_neurons"])
    poles = []
    for k, pole in enumerate(kept["poles"]):
        neurons = torch.tensor(pole["neurons"], dtype=torch.int64)
        if neurons.numel() != pole["size"] or neurons.min() < 0 or (labels[neurons] >= 0).any():
            raise ValueError("a pole's neurons")
        labels[neurons] = k
        strengths[neurons] = torch.tensor(pole["strengths"], dtype=torch.float32)
        poles.append(_figures(pole))
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
        controls=_controls(kept["controls"]),
        label_rules=int(kept.get("label_rules", 0)),
    )


def _rank(kept: dict[str, Any]) -> tuple[int, str]:
    return kept["layer"], kept["site"]


def _damaged(path: Path, what: str) -> UserError:
    return UserError(f"'{path}' is damaged ({what}): {_REMEDY}")
