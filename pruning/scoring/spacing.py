"""What WikiText's own tokenization did to punctuation, undone."""

from __future__ import annotations

import re
from collections.abc import Iterator


def without_spacing(text: str) -> str:
    """The text with its punctuation where it was before WikiText's tokenization."""
    for pattern, replacement in _spacing_rules():
        text = pattern.sub(replacement, text)
    return text


def _spacing_rules() -> Iterator[tuple[re.Pattern[str], str]]:
    """What WikiText's own tokenization did to punctuation, undone rule after rule.

    In the order of the harness's ``wikitext`` task, since a rule sees what those before it left.
    """
    yield re.compile("s '"), "s'"
    for mark in "-,.":
        yield re.compile(f" @{re.escape(mark)}@ "), mark
    for mark in ":;.!?,":
        yield re.compile(f" {re.escape(mark)} "), f"{mark} "
    for left, right in ("()", "[]", "{}", '""', "''"):
        inner = rf"\s*([^{re.escape(right)}]*?)\s*"
        yield re.compile(re.escape(left) + inner + re.escape(right)), rf"{left}\1{right}"
    for n_marks in (4, 3, 2):
        yield re.compile(" ".join("=" * n_marks)), "=" * n_marks
    yield re.compile(" ° "), "°"
    yield re.compile(" \n"), "\n"
    yield re.compile("\n "), "\n"
    yield re.compile(" N "), " 1 "
    yield re.compile(" 's"), "'s"
