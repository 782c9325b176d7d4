"""Checks of settings of commands about the stream, before a model is loaded.

Commands check their options and functions check their arguments with these. Importing this is fast.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from projector.errors import SettingError, check_least, check_seed, named

_LEAST = {
    "layer": 0,
    "length": 4,
    "max_tokens": 1,
    "n_last": 1,
    "n_neurons": 0,
    "n_pair_tokens": 1,
    "n_random": 0,
    "n_sequences": 1,
    "n_shuffles": 1,
    "n_steps": 1,
    "n_top": 1,
    "neuron": 0,
    "sequence_length": 2,
    "tokens_per_step": 1,
}


def check_numbers(**values: int | None) -> None:
    """Raise a SettingError if a number is invalid for every model; None is accepted.

    Args:
        values: settings by name: counts, positions, ``seed``.
    """
    for name, value in values.items():
        if name == "seed":
            check_seed(name, value)
        else:
            check_least(name, value, _LEAST[name])


def check_effect(settings: Any, names: Iterable[str], needed: str) -> None:
    """Raise a SettingError if one of these fields is set without the field that it needs.

    Args:
        settings: a frozen dataclass; default values count as not set.
        needed: the field without which ``names`` have no effect.
    """
    if getattr(settings, needed) is not None:
        return
    defaults = {each.name: each.default for each in fields(settings)}
    for name in names:
        value = getattr(settings, name)
        if value != defaults[name]:
            raise SettingError(
                name,
                str(value) if not isinstance(value, (bool, int, str)) else value,
                f"has no effect without {named(needed)}",
                f"give {named(needed)} too, or leave it out",
            )


def parse_heads(text: str) -> list[tuple[int, int]]:
    """``3.2,4.3`` or ``L3H2,L4H3`` → (3, 2), (4, 3).

    Raises:
        SettingError: on ``show``, for invalid text.
    """
    found = []
    for part in text.split(","):
        numbers = re.fullmatch(r"\s*L?(\d+)\s*(?:\.|H|\s)\s*(\d+)\s*", part, re.IGNORECASE)
        if numbers is None:
            raise SettingError(
                "show", text, "can't be read", "write layers and heads, for example 3.2,4.3"
            )
        found.append((int(numbers[1]), int(numbers[2])))
    return found
