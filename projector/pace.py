"""How often checkpoints are written: often enough to lose little, seldom enough to cost little."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Pace:
    """Decides when to write a checkpoint.

    Args:
        least_s: minimum seconds between two checkpoints.
        share: share of the time that writing may take.
        cost_s: estimated seconds for writing the first checkpoint.
    """

    def __init__(self, least_s: float, share: float, cost_s: float = 0.0) -> None:
        self.least_s, self.share = least_s, share
        self._cost_s = cost_s
        self._last = time.monotonic()

    @property
    def is_due(self) -> bool:
        """Whether the next checkpoint is due."""
        return time.monotonic() - self._last >= max(self.least_s, self._cost_s / self.share)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Time a write; its duration determines when the next one is due."""
        began = time.monotonic()
        yield
        self._last = time.monotonic()
        self._cost_s = self._last - began
