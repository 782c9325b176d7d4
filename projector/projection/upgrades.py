"""Upgrade older versions of a projection in memory.

There is one function per version. It takes the content of a JSON file in its version, and returns
the content in the next version. Entries that the older version lacks stay missing.
"""

from __future__ import annotations

from typing import Any

from projector.projection.facts import LayoutSettings
from projector.storage.entries import Entry
from projector.storage.versions import Upgrade

# In the content of projection.json as it is in memory: name and content of a layout of its own.
OWN_LAYOUT = "own layout"
_OF_A_MAP = (
    "n_neurons",
    "n_tokens",
    "dead_neurons",
    "nonfinite_neurons",
    "n_tokens_left_out",
    "sample",
)


def v1_to_v2(content: dict[str, Any]) -> dict[str, Any]:
    """Upgrade version 1, which had one layout with its settings and figures in
    ``projection.json``.
    """
    facts = {key: value for key, value in content.items() if key != "layout"}
    entry = Entry(content)
    settings = entry.entry("layout").value
    maps = entry.entry("maps")
    facts["maps"] = {
        name: {k: v for k, v in maps.entry(name).value.items() if k in _OF_A_MAP} for name in maps
    }
    layout = {
        "settings": settings,
        "maps": {
            name: {k: v for k, v in maps.entry(name).value.items() if k not in _OF_A_MAP}
            for name in maps
        },
        "versions": content.get("versions"),
    }
    return {
        **facts,
        "format_version": 2,
        OWN_LAYOUT: (LayoutSettings.from_dict(settings).name, layout),
    }


UPGRADES: dict[int, Upgrade] = {1: v1_to_v2}
# Of layouts/<name>.json there is one version so far.
LAYOUT_UPGRADES: dict[int, Upgrade] = {}
