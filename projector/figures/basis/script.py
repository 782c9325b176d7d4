"""The canvas script of a plane before and after, and its style, read once.

``plane.js`` is one JavaScript module without imports that exports ``mount(root, data)``: it draws
``data`` (see ``projector/residual/basis/records.py``) into the element ``root``. The dashboard's
component and the offline pages take it from here.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

_HERE = Path(__file__).parent


@cache
def plane_script() -> str:
    """The module; it exports ``mount(root, data)``, which gives a function that takes it down."""
    return (_HERE / "plane.js").read_text(encoding="utf-8")


@cache
def plane_style() -> str:
    """The style sheet; all its rules are below ``.plane``."""
    return (_HERE / "plane.css").read_text(encoding="utf-8")
