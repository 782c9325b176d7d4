"""The map's scripts, modules of their own in ``web``, as the one script that a page takes.

A page is served one text, and a saved page has no server to ask for another; there is no build.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

WEB = Path(__file__).parent / "web"
_ENTRY = "map.js"
_IMPORT = re.compile(r'^import \{[^}]*\} from "\./([\w.]+)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?!default)", re.MULTILINE)


@cache
def script() -> str:
    """All modules that ``map.js`` needs, each after those that it imports, as one module."""
    order: list[str] = []

    def add(name: str) -> None:
        if name in order:
            return
        text = (WEB / name).read_text(encoding="utf-8")
        for needed in _IMPORT.findall(text):
            add(needed)
        order.append(name)

    add(_ENTRY)
    return "\n".join(map(_part, order))


@cache
def style() -> str:
    """The style sheet."""
    return (WEB / "map.css").read_text(encoding="utf-8")


def _part(name: str) -> str:
    text = (WEB / name).read_text(encoding="utf-8")
    return f"// {name}\n" + _EXPORT.sub("", _IMPORT.sub("", text))
