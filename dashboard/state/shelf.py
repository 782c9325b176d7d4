"""What is kept between reruns and shared between sessions: the only ``st.cache_*``.

What stands on the shelf is shared, and must not be changed by who gets it.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import psutil
import streamlit as st
import torch

from dashboard.background.job import Jobs
from dashboard.state.model_room import ModelRoom

T = TypeVar("T")
# The kind of thing, and what tells it from others of its kind.
Key = tuple[Hashable, ...]
# The part of the machine's memory that the shelf may take.
_MEMORY_PART = 4
# How soon a session that waits for another one's work is asked whether it still wants to.
_WAIT_S = 0.2


@dataclass
class _Entry:
    value: Any
    n_bytes: int
    made_at: float


@dataclass
class _Turn:
    """Someone makes a value now; ``n_forgotten``: how often its kind was forgotten before."""

    n_forgotten: int
    thread: int = field(default_factory=threading.get_ident)
    ended: threading.Event = field(default_factory=threading.Event)


class Shelf:
    """Values by their keys, bounded in bytes; the longest unused goes first.

    Each value is made once, however many threads ask for it. A value that could not be made is not
    kept: whoever waited for it makes it.

    Args:
        most_bytes: of all values together. The value kept last stays, however large it is.
        clock: seconds that never run backwards.
    """

    def __init__(self, most_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most_bytes, self._clock = most_bytes, clock
        self._lock = threading.Lock()
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()
        self._turns: dict[Key, _Turn] = {}
        self._n_forgotten: Counter[Hashable] = Counter()
        self._n_bytes = 0

    @property
    def n_bytes(self) -> int:
        """What all values take."""
        return self._n_bytes

    def keep(
        self,
        key: Key,
        make: Callable[[], T],
        *,
        most_age_s: float | None = None,
        waiting: Callable[[], object] = lambda: None,
    ) -> T:
        """The value of a key, made now where there is none.

        Args:
            most_age_s: an older value is made anew; None for any age.
            waiting: called again and again while another thread makes the value; raising in it
                ends the wait.
        """
        while True:
            with self._lock:
                entry = self._find(key, most_age_s)
                if entry is not None:
                    return entry.value
                turn = self._turns.get(key)
                if turn is None:
                    turn = self._turns[key] = _Turn(self._n_forgotten[key[0]])
                    break
            if turn.thread == threading.get_ident():
                raise RuntimeError(f"making {key[0]} asks for itself")
            waiting()
            turn.ended.wait(_WAIT_S)
        try:
            value = make()
            entry = _Entry(value, size_of(value), self._clock())
            with self._lock:
                if turn.n_forgotten == self._n_forgotten[key[0]]:
                    self._put(key, entry)
            return value
        finally:
            with self._lock:
                del self._turns[key]
            turn.ended.set()

    def peek(self, key: Key) -> Any:
        """The value of a key; None where there is none."""
        with self._lock:
            entry = self._find(key, None)
            return None if entry is None else entry.value

    def forget(self, kind: str) -> None:
        """Drop all values of a kind: those whose keys begin with it.

        One that is being made is given to who makes it, and not kept: it may be of before.
        """
        with self._lock:
            self._n_forgotten[kind] += 1
            for key in [key for key in self._entries if key[0] == kind]:
                self._n_bytes -= self._entries.pop(key).n_bytes

    def _find(self, key: Key, most_age_s: float | None) -> _Entry | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        if most_age_s is not None and self._clock() - entry.made_at > most_age_s:
            return None
        self._entries.move_to_end(key)
        return entry

    def _put(self, key: Key, entry: _Entry) -> None:
        old = self._entries.pop(key, None)
        self._n_bytes += entry.n_bytes - (0 if old is None else old.n_bytes)
        self._entries[key] = entry
        while self._n_bytes > self._most_bytes and len(self._entries) > 1:
            _, gone = self._entries.popitem(last=False)
            self._n_bytes -= gone.n_bytes


def size_of(value: Any) -> int:
    """Bytes that a value takes, with all that it holds; numbers that are still on disk are none."""
    found: dict[int, Any] = {}
    waiting = [value]
    n_bytes = 0
    while waiting:
        each = waiting.pop()
        if id(each) in found:
            continue
        found[id(each)] = each
        if isinstance(each, (np.ndarray, torch.Tensor)):
            n_bytes += each.nbytes
            continue
        n_bytes += sys.getsizeof(each, 0)
        if isinstance(each, dict):
            waiting += [*each.keys(), *each.values()]
        elif isinstance(each, (list, tuple, set, frozenset)):
            waiting += each
        elif hasattr(each, "__dict__") and not isinstance(each, type) and not callable(each):
            waiting += vars(each).values()
    return n_bytes


@st.cache_resource(show_spinner=False)
def shelf() -> Shelf:
    """The one shelf of the app."""
    return Shelf(psutil.virtual_memory().total // _MEMORY_PART)


@st.cache_resource(show_spinner=False)
def model_room(device: str, dtype: str) -> ModelRoom:
    """The one model in memory; on the shelf it could make room for others while it is used."""
    return ModelRoom(device, dtype)


@st.cache_resource(show_spinner=False)
def jobs() -> Jobs:
    """The runs that go on in the background."""
    return Jobs()
