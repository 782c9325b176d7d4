"""The file that keeps poles beside a projection."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from projector.errors import UserError
from projector.projection.projection import FACTS_FILE
from projector.sites import map_name
from pruning.poles.poles import Pole, Poles, PoleSettings

FORMAT = "transformer-poles"
FORMAT_VERSION = 1
POLES_FILE = "poles.json"


def check_poles_file(folder: str | Path) -> None:
    """Raise a UserError if poles can't be saved in this folder, before they are looked for."""
    where = Path(folder)
    _read(where)
    if not os.access(where, os.W_OK | os.X_OK):
        raise UserError(f"'{where}' can't be written to: copy the projection to another folder")


def save_poles(folder: str | Path, poles: Iterable[Poles]) -> Path:
    """Add poles to the file beside the projection in ``folder``, in one step; returns its path.

    Those of equal settings, layer and site are replaced. Poles of a projection that was replaced
    since are dropped.

    Raises:
        UserError: if there is no projection, the file that is there is damaged, or it can't be
            written: then the old one is left.
    """
    where = Path(folder)
    content = _read(where)
    results = content["results"]
    for one in poles:
        entry = results.setdefault(one.settings.key, {"settings": _settings_dict(one), "maps": {}})
        entry["maps"][map_name(one.layer, one.site)] = one.as_dict()
    content["results"] = {
        key: results[key]
        | {"maps": dict(sorted(results[key]["maps"].items(), key=lambda item: _rank(item[1])))}
        for key in sorted(results)
    }
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    # A list of numbers on a line.
    text = re.sub(r"\[[\s\d.,e+-]*\]", lambda found: " ".join(found[0].split()), text) + "\n"
    path, partial = where / POLES_FILE, where / f".{POLES_FILE}.partial"
    try:
        try:
            partial.write_text(text, encoding="utf-8")
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"'{path}' can't be written: {error.strerror or error}") from error
    return path


def load_poles(
    folder: str | Path, layer: int, site: str = "mlp_post", settings: PoleSettings | None = None
) -> Poles | None:
    """Poles that :func:`save_poles` kept, or None: none were, or for another projection.

    Raises:
        UserError: if there is no projection, or the file is damaged or of another version.
    """
    where, settings = Path(folder), settings or PoleSettings()
    entry = _read(where)["results"].get(settings.key)
    if entry is None:
        return None
    try:
        kept = entry["maps"].get(map_name(layer, site))
        return None if kept is None else _from_dict(kept, settings)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError) as error:
        raise _damaged(where / POLES_FILE, map_name(layer, site)) from error


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


def _settings_dict(poles: Poles) -> dict[str, Any]:
    settings = asdict(poles.settings)
    # As the key has them.
    return settings | {
        "min_samples": poles.settings.effective_min_samples,
        "epsilon": abs(float(poles.settings.epsilon)),
    }


def _rank(kept: dict[str, Any]) -> tuple[int, str]:
    return kept["layer"], kept["site"]


def _read(where: Path) -> dict[str, Any]:
    """The file's content; empty where there is none, or it is of another projection."""
    facts, path = where / FACTS_FILE, where / POLES_FILE
    if not facts.exists():
        raise UserError(f"'{where}' is no projection: {FACTS_FILE} is missing")
    fingerprint = hashlib.sha256(facts.read_bytes()).hexdigest()
    empty = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "projection": fingerprint,
        "results": {},
    }
    if not path.exists():
        return empty
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(path, "it is not JSON") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"'{path}' is not the work of this program: move it away")
    version = content.get("format_version")
    if version != FORMAT_VERSION:
        raise UserError(
            f"'{path}' has format version {version}, and this program reads {FORMAT_VERSION}: "
            "upgrade the program, or delete it and find the poles again with `pruning poles`"
        )
    if content.get("projection") != fingerprint:
        return empty
    try:
        for entry in content["results"].values():
            for kept in entry["maps"].values():
                _rank(kept)
    except (KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, f"{error} is missing or wrong") from error
    return content


def _damaged(path: Path, what: str) -> UserError:
    return UserError(
        f"'{path}' is damaged ({what}): delete it, and find the poles again with `pruning poles`"
    )
