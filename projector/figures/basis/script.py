"""The canvas script of a plane before and after, and its style, read once.

The modules of JavaScript in ``web`` become one without imports that exports ``mount(root, data)``:
it draws ``data`` (see ``projector/residual/basis/records.py``) into the element ``root``. The
dashboard's component and the offline pages take it from here.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from projector.figures.renderer.bundling import bundle

WEB = Path(__file__).parent / "web"


@cache
def plane_script() -> str:
    """The module; it exports ``mount(root, data)``, which gives a function that takes it down."""
    return bundle(WEB, "plane.js")


@cache
def plane_style() -> str:
    """The style sheet; all its rules are below ``.plane``."""
    return (WEB / "plane.css").read_text(encoding="utf-8")
