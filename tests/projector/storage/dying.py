"""A process that ends at one moment of the disk, as a kill or a power cut ends it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any


def die_in(die_at: int, *owned: tuple[Any, str]) -> None:
    """End this process at the ``die_at``-th moment, from 1: before or after a call of these.

    Call it in a process of its own only: the functions stay replaced.

    Args:
        owned: module or class, and the name of a function of it.
    """
    moments = 0

    def moment() -> None:
        nonlocal moments
        moments += 1
        if moments == die_at:
            os._exit(9)

    def watched(function: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **options: object) -> object:
            moment()
            done = function(*args, **options)
            moment()
            return done

        return call

    for owner, name in owned:
        setattr(owner, name, watched(getattr(owner, name)))
