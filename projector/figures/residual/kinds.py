"""How kinds of head look, in every table: a letter and a colour each."""

from __future__ import annotations

from collections.abc import Sequence

from projector.residual.heads.kinds import KINDS

# Dark enough for white letters.
COLOURS = {
    "previous_token": "#3d7fb5",
    "duplicate_token": "#2f8f83",
    "induction": "#c8513a",
    "beginning": "#6b7684",
    "copying": "#8a5fa8",
    "copying_through_mlps": "#b0528a",
}
LETTERS = {kind.name: kind.title[0].upper() for kind in KINDS} | {"copying_through_mlps": "M"}
INK = "#ffffff"


def in_order(names: Sequence[str]) -> list[str]:
    """Names of kinds, those of a head's attention before those of its weights."""
    return [kind.name for kind in KINDS if kind.name in names]


def letters_of(names: Sequence[str]) -> str:
    """The letters of all kinds that a head is of, such as ``IM``."""
    return "".join(LETTERS[name] for name in in_order(names))


def background_of(names: Sequence[str]) -> str:
    """The colours of all kinds that a head is of beside one another, as CSS; empty for none."""
    colours = [COLOURS[name] for name in in_order(names)]
    n = len(colours)
    stops = ", ".join(
        f"{colour} {100 * k / n:.0f}% {100 * (k + 1) / n:.0f}%" for k, colour in enumerate(colours)
    )
    return f"linear-gradient(90deg, {stops})" if n else ""
