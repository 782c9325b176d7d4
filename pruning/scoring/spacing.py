"""Undo the spaces that WikiText's tokenization put around punctuation."""

from __future__ import annotations

import re
from collections.abc import Iterator


def without_spacing(text: str) -> str:
    """The text with the punctuation that it had before WikiText's tokenization."""
    for pattern, replacement in _spacing_rules():
        text = pattern.sub(replacement, text)
    return text


def _spacing_rules() -> Iterator[tuple[re.Pattern[str], str]]:
    """Rules that undo WikiText's tokenization of punctuation one after another.

    In the order of the harness's ``wikitext`` task, because each rule reads the result of the rules
    before it.
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
