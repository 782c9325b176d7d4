"""The letter and the colour of each kind of head, in every table."""

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
    """Sort names of kinds, those of attention before those of weights."""
    return [kind.name for kind in KINDS if kind.name in names]


def letters_of(names: Sequence[str]) -> str:
    """The letters of all kinds of a head, such as ``IM``."""
    return "".join(LETTERS[name] for name in in_order(names))


def background_of(names: Sequence[str]) -> str:
    """The colours of all kinds of a head next to one another, as CSS; empty for no kind."""
    colours = [COLOURS[name] for name in in_order(names)]
    n = len(colours)
    stops = ", ".join(
        f"{colour} {100 * k / n:.0f}% {100 * (k + 1) / n:.0f}%" for k, colour in enumerate(colours)
    )
    return f"linear-gradient(90deg, {stops})" if n else ""
