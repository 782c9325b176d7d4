"""The one bounded folder on disk: what is costly to make is kept there between runs of the app."""

from __future__ import annotations

import os
from pathlib import Path

from dashboard.prompts import STORED_PROMPTS
from projector.storage.bounded import BoundedFolder

# Of a layer and site of 3,072 neurons, examples take some 27 MB; a prompt takes next to nothing.
_MOST_BYTES = 4 * 2**30


def stored() -> BoundedFolder:
    """Where prompts are, which links name by their ids, and what drives neurons."""
    return BoundedFolder(_place(), (STORED_PROMPTS, "examples/*.safetensors"), _MOST_BYTES)


def examples_name(sha256: str, layer: int, site: str) -> str:
    """The file that holds what drives the neurons of a layer and site of a model."""
    return f"examples/{sha256[:16]}-{layer}-{site}.safetensors"


def _place() -> Path:
    given = os.environ.get("TRANSFORMER_PROJECTOR_CACHE")
    if given:
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "transformer-projector"
