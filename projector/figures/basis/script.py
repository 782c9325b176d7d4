"""The canvas script of a plane before and after, and its style, read once.

The JavaScript modules in ``web`` are bundled to one without imports that exports ``mount(root,
data)``, which draws ``data`` (see ``projector/residual/basis/records.py``) into the element
``root``. The dashboard's component and the offline pages take it from here.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from projector.figures.renderer.bundling import bundle

WEB = Path(__file__).parent / "web"


@cache
def plane_script() -> str:
    """The module. It exports ``mount(root, data)``, which returns a function that removes it."""
    return bundle(WEB, "plane.js")


@cache
def plane_style() -> str:
    """The style sheet; all its rules are scoped to ``.plane``."""
    return (WEB / "plane.css").read_text(encoding="utf-8")
