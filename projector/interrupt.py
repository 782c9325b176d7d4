"""Handling of Ctrl-C at a suitable moment."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

# A terminal's Ctrl-C reaches a process twice where a launcher passes it on: that is one.
_SAME_PRESS_S = 1.0


class DeferredInterrupt:
    """In this context, the first Ctrl-C only sets ``is_asked``; a second one interrupts at once.

    SIGTERM, which schedulers and launchers use to end a process, is treated like Ctrl-C. Outside
    the main thread, where Python delivers no signals, this does nothing.
    """

    def __init__(self) -> None:
        self.is_asked = False
        self._asked_at = 0.0
        self._is_at_once = False
        self._before: dict[signal.Signals, Any] = {}
        self._is_main = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> DeferredInterrupt:
        if self._is_main:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """In this context, the first Ctrl-C interrupts at once, for work that can't be saved in
        part.
        """
        self._is_at_once = True
        try:
            if self.is_asked:
                raise KeyboardInterrupt
            yield
        finally:
            self._is_at_once = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.is_asked and time.monotonic() - self._asked_at > _SAME_PRESS_S:
            raise KeyboardInterrupt
        if not self.is_asked:
            self.is_asked, self._asked_at = True, time.monotonic()
            if self._is_at_once:
                raise KeyboardInterrupt
