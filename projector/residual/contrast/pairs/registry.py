"""The pairs of prompt sets by name. A new pair needs one module and one line here."""

from __future__ import annotations

from projector.errors import check_choice
from projector.residual.contrast.pairs.code_docstrings import CODE_DOCSTRINGS
from projector.residual.contrast.pairs.negation import NEGATION
from projector.residual.contrast.pairs.pair import Pair

# The first is taken where none is named.
PAIRS: dict[str, Pair] = {each.name: each for each in (CODE_DOCSTRINGS, NEGATION)}
DEFAULT_PAIR = next(iter(PAIRS))


def find_pair(name: str) -> Pair:
    """Find a pair by its name.

    Raises:
        SettingError: on ``pair``, if there is no pair with this name.
    """
    check_choice("pair", name, PAIRS)
    return PAIRS[name]
