"""The renderer's scripts, bundled from the modules in ``web``, and their styles, read once.

A script is one module without imports. Its default export is a function of a component with
``parentElement``, the root to draw in; ``data``; and ``setTriggerValue(name, value)``, which
reports the user's choice. The dashboard's components and the offline pages use the same scripts.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from projector.figures.renderer.bundling import bundle

WEB = Path(__file__).parent / "web"


@cache
def script(entry: str) -> str:
    """The bundled script of an entry such as ``map.js``."""
    return bundle(WEB, entry)


@cache
def style(name: str) -> str:
    """A style sheet, such as ``map.css``."""
    return (WEB / name).read_text(encoding="utf-8")
