"""Long work on a page: a bar that moves, and a button that stops it.

A click runs the page again, and ends its current work at the next call of :meth:`Work.advance`.
Hooks and locks are released, and nothing half-done is kept.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import streamlit as st

from projector.progress import Silent

_LEAST_SECONDS = 0.1
# A page may do the same work twice, and its buttons need different keys.
_numbers = itertools.count()


class Work:
    """A :class:`projector.progress.Progress` that is drawn on the page."""

    def __init__(self, bar: st.delta_generator.DeltaGenerator, title: str) -> None:
        self._bar, self._title, self._unit = bar, title, ""
        self._total: int | None = None
        self._done, self._drawn = 0, 0.0
        self._began = time.monotonic()
        self._draw()

    def begin(self, title: str, total: int | None, unit: str) -> None:
        """Begin a stage."""
        self._title, self._total, self._unit = title, total, unit
        self._done, self._began = 0, time.monotonic()
        self._draw()

    def advance(self, n: int) -> None:
        """Count ``n`` more units as done. Raises if the user asked to stop."""
        self._done += n
        if time.monotonic() - self._drawn >= _LEAST_SECONDS:
            self._draw()

    def end(self) -> None:
        """End the stage."""
        self._done = self._total or self._done
        self._draw()

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        if not self._total:
            n_done = f"{self._done:,} {self._unit}" if self._done else ""
            self._bar.progress(0.0, f"{self._title} … {n_done}".rstrip())
            return
        share = min(1.0, self._done / self._total)
        text = f"{self._title} … {self._done:,} of {self._total:,} {self._unit}"
        elapsed = self._drawn - self._began
        if share > 0.02 and elapsed > 1:
            text += f", {elapsed / share - elapsed:.0f} s left"
        self._bar.progress(share, text)


class Within(Silent):
    """Steps within one unit of work, without their own progress bar."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def advance(self, n: int) -> None:
        self._work.advance(0)


@contextmanager
def working(title: str, on_stop: Callable[[], None] | None = None) -> Iterator[Work]:
    """Show progress while the block runs, with a button that stops it."""
    place = st.empty()
    with place.container():
        columns = st.columns([3, 1], vertical_alignment="center")
        bar = columns[0].empty()
        # Any click runs the page again; this is a button to click.
        key = f"stop {title} {next(_numbers)}"
        columns[1].button("Stop", key=key, on_click=on_stop, width="stretch")
    try:
        yield Work(bar, title)
    finally:
        place.empty()
