"""Writes the tables of modules in the architecture page: ``python -m tests.tools.modules``.

A row is a module and the first sentence of its docstring. The rows' order is kept, because it is
the order of imports; a module without a row is named, to be put in its place by hand.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/architecture.md"
_PACKAGES = ("dashboard", "projector", "pruning")
_ROW = re.compile(r"^\| `([\w/]+\.py)` \| .* \|\n", re.MULTILINE)


def first_sentence(path: Path) -> str:
    """The first sentence of a module's docstring as a table's cell, without its full stop."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    paragraph = " ".join(docstring.partition("\n\n")[0].split())
    sentence = re.split(r"\. (?=[A-Z])", paragraph)[0].rstrip(".")
    return sentence.replace("``", "`").replace("|", r"\|")


def brought_up_to_date(page: str) -> str:
    """The page with each row's sentence as the module now has it, without rows of lost modules."""

    def row(match: re.Match[str]) -> str:
        path = ROOT / match[1]
        return f"| `{match[1]}` | {first_sentence(path)} |\n" if path.exists() else ""

    return _ROW.sub(row, page)


def modules_without_row(page: str) -> list[str]:
    """Modules of the packages that no table lists except ``__init__`` and ``__main__``."""
    listed = {match[1] for match in _ROW.finditer(page)}
    paths = (path for package in _PACKAGES for path in (ROOT / package).rglob("*.py"))
    names = (str(path.relative_to(ROOT)) for path in paths if not path.name.startswith("__"))
    return sorted(set(names) - listed)


def main() -> None:
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(brought_up_to_date(page), encoding="utf-8")
    for name in modules_without_row(page):
        print(f"{name} has no row")


if __name__ == "__main__":
    main()
