"""How often something is written: often enough to lose little, seldom enough to cost little."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Pace:
    """When to write a checkpoint: often enough to lose seconds, seldom enough to cost little.

    Args:
        least_s: seconds between two, at least.
        share: of the time, what writing may take.
        cost_s: seconds that the first is thought to take.
    """

    def __init__(self, least_s: float, share: float, cost_s: float = 0.0) -> None:
        self.least_s, self.share = least_s, share
        self._cost_s = cost_s
        self._last = time.monotonic()

    @property
    def is_due(self) -> bool:
        """Whether the next may be written."""
        return time.monotonic() - self._last >= max(self.least_s, self._cost_s / self.share)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Around a write: what it costs decides when the next is due."""
        began = time.monotonic()
        yield
        self._last = time.monotonic()
        self._cost_s = self._last - began
