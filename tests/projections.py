"""Projections on disk that are changed by hand, as a careless program would."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file

Change = Callable[[dict[str, Any]], object]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its name within it."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def edit(folder: Path, facts: Change | None = None, layout: Change | None = None) -> None:
    """Change ``projection.json`` or every layout's file, all that names their hashes along with
    them: only what they say is wrong then."""
    path = folder / "projection.json"
    content = json.loads(path.read_text())
    if facts is not None:
        facts(content)
    text = json.dumps(content)
    path.write_text(text)
    metadata = {"projection": hashlib.sha256(text.encode()).hexdigest()}
    for each in sorted((folder / "layouts").glob("*.json")):
        content = json.loads(each.read_text()) | metadata
        if layout is not None:
            layout(content)
        text = json.dumps(content)
        each.write_text(text)
        own = {"layout": hashlib.sha256(text.encode()).hexdigest()}
        _rename(each.with_suffix(".safetensors"), metadata | own)
    for name in ("statistics", "positions", "examples"):
        if (folder / f"{name}.safetensors").exists():
            _rename(folder / f"{name}.safetensors", metadata)


def _rename(path: Path, metadata: dict[str, str]) -> None:
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    with safe_open(path, framework="pt") as file:
        before = file.metadata()
    save_file(tensors, path, metadata=before | metadata)
