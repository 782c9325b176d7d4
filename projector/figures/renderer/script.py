"""The scripts of the renderer, whose modules are in ``web``, and their styles, read once.

A script is one module without imports. Its default export is a function that takes a component:
``parentElement``, the root that it draws in; ``data``; and ``setTriggerValue(name, value)``, which
tells what the user chose. The dashboard's components and the offline pages take the same scripts.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from projector.figures.renderer.bundling import bundle

WEB = Path(__file__).parent / "web"


@cache
def script(entry: str) -> str:
    """All modules that an entry such as ``map.js`` needs, as one."""
    return bundle(WEB, entry)


@cache
def style(name: str) -> str:
    """A style sheet, such as ``map.css``."""
    return (WEB / name).read_text(encoding="utf-8")
