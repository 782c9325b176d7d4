"""Ctrl-C at a moment that suits."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class DeferredInterrupt:
    """While open, the first Ctrl-C is only noted in ``is_asked``; a second one interrupts at once.

    In other threads than the main one, where Python delivers no signal, it does nothing.
    """

    def __init__(self) -> None:
        self.is_asked = False
        self._before: Any = None
        self._is_main = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> DeferredInterrupt:
        if self._is_main:
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_main:
            signal.signal(signal.SIGINT, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.is_asked:
            raise KeyboardInterrupt
        self.is_asked = True
