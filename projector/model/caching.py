"""Keys and values that a model keeps from one run to the next, under the name that it gives them.

Transformers 5.24 renamed ``past_key_values`` to ``cache``, in calls and in results.
"""

from __future__ import annotations

from inspect import signature
from typing import Any

_NAMES = ("cache", "past_key_values")


def with_cache(model: Any, cache: Any) -> dict[str, Any]:
    """The argument that gives a model the keys and values of an earlier run.

    Args:
        cache: as :func:`cache_of` returned it; None for a first run.
    """
    known = signature(model.forward).parameters
    return {next((name for name in _NAMES if name in known), _NAMES[-1]): cache}


def cache_of(out: Any) -> Any:
    """The keys and values in a model's result; None if it keeps none."""
    found = (getattr(out, name, None) for name in _NAMES)
    return next((each for each in found if each is not None), None)
