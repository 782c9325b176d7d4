"""What the signs in labels mean, for a legend below a table."""

from __future__ import annotations

import re
from collections.abc import Iterable

_LINES = (
    (r"\S ↓$", "↓", "the label describes the lowest activations, not the highest"),
    (r"\S …(?: ↓)?$", "…", "after a space: the neurons of the group fire on other tokens too"),
    (r"\S…", "…", "at the end of a word: the word is cut"),
    (r" \(mixed\)", "(mixed)", "the tokens agree no more than by chance"),
    (r"\S · \S", "·", "separates tokens"),
    (r"^after “", "after “a”", "the tokens differ, and the token before them is the same"),
    (r"⏎", "⏎", "a new line"),
    (r"⇥", "⇥", "a tab"),
    (r"␣", "␣", "a space"),
)
_REPEATED = re.compile(r"(\S)×(\d+)")


def signs_in(labels: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """The signs that occur in labels, and what each means.

    Args:
        labels: texts of labels, see :class:`projector.naming.labels.Label`.
    """
    texts = list(labels)
    found = [
        (sign, meaning)
        for pattern, sign, meaning in _LINES
        if any(re.search(pattern, text) for text in texts)
    ]
    repeated = next(filter(None, map(_REPEATED.search, texts)), None)
    if repeated is not None:
        found.append((repeated[0], f"{repeated[1]} {repeated[2]} times in a row"))
    return tuple(found)
