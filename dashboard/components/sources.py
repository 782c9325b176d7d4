"""The map's script, whose modules are in ``web``, and its style, read once."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from projector.figures.bundling import bundle

WEB = Path(__file__).parent / "web"


@cache
def script() -> str:
    """All modules that ``map.js`` needs, as one."""
    return bundle(WEB, "map.js")


@cache
def style() -> str:
    """The style sheet."""
    return (WEB / "map.css").read_text(encoding="utf-8")
