"""Resumable state of a running fit: one safetensors file, replaced atomically."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from projector.errors import UserError

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Checkpoint:
    """State after ``n_batches`` batches, and the facts of the run that it belongs to."""

    tensors: dict[str, Tensor]
    facts: dict[str, Any]
    n_batches: int


def checkpoint_path(out: Path) -> Path:
    """Where the checkpoint of a fit into the folder ``out`` lies: beside it."""
    return out.parent / f"{out.name}.checkpoint.safetensors"


def check_unfinished(out: Path, *, force: bool, resume: bool) -> None:
    """Raise a UserError if a new fit would overwrite the checkpoint of a stopped one."""
    path = checkpoint_path(out)
    if path.exists() and not (force or resume):
        raise UserError(
            f"'{path}' is the checkpoint of a stopped fit: add --resume to go on with it, "
            "or --force to start over"
        )


def save_checkpoint(
    path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], n_batches: int
) -> None:
    """Write a checkpoint; a kill at any moment leaves the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    header = {"version": FORMAT_VERSION, "facts": dict(facts), "n_batches": n_batches}
    try:
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
            partial,
            metadata={"checkpoint": json.dumps(header, sort_keys=True)},
        )
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load_checkpoint(path: Path, facts: Mapping[str, Any]) -> Checkpoint:
    """Read a checkpoint of a run with the same facts.

    Raises:
        UserError: if there is none, it is damaged, or it belongs to another run.
    """
    if not path.exists():
        raise UserError(f"there is no checkpoint '{path}' to resume: leave --resume out")
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})["checkpoint"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise UserError(f"checkpoint '{path}' is damaged: delete it and start again") from error
    if header["version"] != FORMAT_VERSION:
        raise UserError(
            f"checkpoint '{path}' has format version {header['version']}, and this program reads "
            f"{FORMAT_VERSION}: delete it and start again"
        )
    theirs, ours = header["facts"], json.loads(json.dumps(dict(facts)))
    for name in sorted(set(theirs) | set(ours)):
        if theirs.get(name) != ours.get(name):
            raise UserError(
                f"checkpoint '{path}' belongs to another run: its {name} is "
                f"{theirs.get(name)!r}, and this one's {ours.get(name)!r}"
            )
    return Checkpoint(tensors, header["facts"], header["n_batches"])
