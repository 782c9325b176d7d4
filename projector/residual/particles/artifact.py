"""The files of a picture of hidden states over the layers: ``report.json`` and its arrays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from projector.errors import UserError
from projector.residual.particles.records import AUTOENCODER_FOLDER, KIND, VERSION, LayerTime
from projector.storage.folders import restore_folder
from projector.storage.places import disk_errors
from projector.storage.tensors import TensorFile, write_tensors
from projector.storage.versions import json_text, read_json

JSON_FILE, TENSOR_FILE = "report.json", "particles.safetensors"
_REMEDY = "run the command again"
# Dimensions of each array; F frames, P particles, k lines, n pairs.
_SHAPES = {
    "positions": ("F", "P", 3),
    "norms": ("F", "P"),
    "displacements": ("F", "P"),
    "neighbours": ("F", "P", "k"),
    "distances": ("F", "P", "k"),
    "born": ("P",),
    "outlying": ("P",),
    "owner_prompt": ("P",),
    "owner_token": ("P",),
    "owner_part": ("P",),
    "partners": ("n", 2),
}


def write_particles(found: LayerTime, folder: Path) -> None:
    """Write both files into a folder, which is created, for callers that add other files.

    If the particles come from an autoencoder, it is written into ``autoencoder/``.

    Raises:
        OSError: if the files can't be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / TENSOR_FILE, found.tensors(), {"model": found.model_sha256})
    (folder / JSON_FILE).write_text(json_text(found.as_dict()), encoding="utf-8")
    if found.saved is not None:
        found.saved.write(folder / AUTOENCODER_FOLDER)


def read_particles(folder: Path | str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read the report and the arrays of a folder, and check them against each other.

    Raises:
        UserError: if there are none, or they are damaged or newer.
    """
    folder = Path(folder)
    with disk_errors(folder):
        restore_folder(folder)
    if not (folder / JSON_FILE).is_file() or not (folder / TENSOR_FILE).is_file():
        why = "is not a folder" if not folder.is_dir() else "holds no particles"
        raise UserError(f"'{folder}' {why}: give a folder that `projector layer-time` wrote")
    report, _ = read_json(folder / JSON_FILE)
    if not isinstance(report, dict) or report.get("kind") != KIND:
        raise UserError(
            f"'{folder}' holds another report: give a folder that `projector layer-time` wrote"
        )
    if report.get("version") != VERSION:
        raise UserError(
            f"'{folder}' has version {report.get('version')!r}, but this program reads "
            f"{VERSION}: {_REMEDY}"
        )
    try:
        arrays = {name: each.numpy() for name, each in TensorFile(folder / TENSOR_FILE).items()}
        _check(report, arrays)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(
            f"'{folder}' holds damaged particles ({' '.join(str(error).split())}): {_REMEDY}"
        ) from error
    return report, arrays


def _check(report: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Raise a ValueError or KeyError unless arrays and report are of one cloud."""
    sizes: dict[Any, int] = {"F": report["n_frames"], "P": report["n_particles"]}
    for name, dimensions in _SHAPES.items():
        shape = arrays[name].shape
        if len(shape) != len(dimensions):
            raise ValueError(f"'{name}' has shape {shape}")
        for size, dimension in zip(shape, dimensions, strict=True):
            expected = (
                dimension if isinstance(dimension, int) else sizes.setdefault(dimension, size)
            )
            if size != expected:
                raise ValueError(f"'{name}' has shape {shape}")
    for name in ("frames", "fidelity"):
        if len(report[name]) != sizes["F"]:
            raise ValueError(f"{name} are {len(report[name])} and frames {sizes['F']}")
    n_prompts = len(report["prompts"])
    if not 1 <= n_prompts <= 2 or not all(each["tokens"] for each in report["prompts"]):
        raise ValueError(f"it has {n_prompts} prompts")
    lengths = np.array([len(each["tokens"]) for each in report["prompts"]])
    prompt, token, part = (arrays[f"owner_{name}"] for name in ("prompt", "token", "part"))
    if not _within(prompt, 0, n_prompts) or not _within(part, -1, len(report["parts"])):
        raise ValueError("a particle belongs to no prompt")
    if bool(((token < -1) | (token >= lengths[prompt])).any()):
        raise ValueError("a particle belongs to no token")
    for name in ("neighbours", "partners"):
        if not _within(arrays[name], -1 if name == "neighbours" else 0, sizes["P"]):
            raise ValueError(f"'{name}' names a particle that doesn't exist")
    if not _within(arrays["born"], 0, sizes["F"]):
        raise ValueError("a particle exists in no frame")


def _within(values: np.ndarray, low: int, end: int) -> bool:
    return not values.size or bool(((values >= low) & (values < end)).all())
