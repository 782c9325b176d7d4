"""Values that are kept between reruns and shared between sessions: the only ``st.cache_*``.

Values on the shelf are shared, so callers must not change them.
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
# The kind of value, and its key within that kind.
Key = tuple[Hashable, ...]
# Share of the machine's memory that the shelf may take.
_MEMORY_PART = 4
# Seconds between checks whether a waiting session still wants the value.
_WAIT_S = 0.2


@dataclass
class _Entry:
    value: Any
    n_bytes: int
    made_at: float


@dataclass
class _Turn:
    """A value in the making; ``n_forgotten``: how often its kind was dropped before."""

    n_forgotten: int
    thread: int = field(default_factory=threading.get_ident)
    ended: threading.Event = field(default_factory=threading.Event)


class Shelf:
    """Values by key, bounded in bytes; the least recently used value is dropped first.

    Each value is made once for any number of threads. If making it fails, nothing is kept, and a
    waiting thread makes it.

    Args:
        most_bytes: limit for all values together. The last value stays, even if it is larger.
        clock: monotonic clock, in seconds.
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
        """Bytes of all values."""
        return self._n_bytes

    def keep(
        self,
        key: Key,
        make: Callable[[], T],
        *,
        most_age_s: float | None = None,
        waiting: Callable[[], object] = lambda: None,
    ) -> T:
        """The value of a key, made now if missing.

        Args:
            most_age_s: an older value is made again; None for any age.
            waiting: called repeatedly while another thread makes the value; an exception in it ends
                the wait.
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
        """The value of a key; None if there is none."""
        with self._lock:
            entry = self._find(key, None)
            return None if entry is None else entry.value

    def forget(self, kind: str) -> None:
        """Drop all values of a kind, that is, whose keys begin with it.

        A value in the making is returned to its maker but not kept, because it may be outdated.
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
    """Bytes of a value with everything it holds; numbers that are still on disk count 0."""
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
    """The one model in memory; the shelf could drop it while it is used."""
    return ModelRoom(device, dtype)


@st.cache_resource(show_spinner=False)
def jobs() -> Jobs:
    """The runs in the background."""
    return Jobs()
