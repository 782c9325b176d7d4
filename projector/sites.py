"""Where activations are read in a block, and how a layer's site is named in every file."""

from __future__ import annotations

# Layer and site.
MapKey = tuple[int, str]


def map_name(layer: int, site: str) -> str:
    """The key of one layer and site in every file of a projection."""
    return f"layers.{layer}.{site}"
