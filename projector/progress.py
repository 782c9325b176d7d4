"""Progress reports: commands and pages draw bars, and a library call writes one line."""

from __future__ import annotations

import sys
import time
from typing import Protocol, TextIO

# A line that is written more often is no easier to read.
_LEAST_SECONDS = 0.2


class Progress(Protocol):
    """The protocol of progress reports, in consecutive stages."""

    def begin(self, stage: str, total: int | None, unit: str) -> None:
        """Begin a stage of ``total`` units (None if unknown), and end the previous stage."""

    def advance(self, n: int) -> None:
        """Report that ``n`` more units are done."""

    def end(self) -> None:
        """End the last stage."""


class Silent:
    """Progress that is not shown."""

    def begin(self, stage: str, total: int | None, unit: str) -> None:
        pass

    def advance(self, n: int) -> None:
        pass

    def end(self) -> None:
        pass


class Line:
    """Progress on one line that is overwritten, with the stage and the share done.

    Args:
        stream: the terminal to write to.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._stage, self._unit = "", ""
        self._total: int | None = None
        self._done, self._width = 0, 0
        self._began = self._written = 0.0

    def begin(self, stage: str, total: int | None, unit: str) -> None:
        self.end()
        self._stage, self._total, self._unit, self._done = stage, total, unit, 0
        self._began = time.monotonic()
        self._write()

    def advance(self, n: int) -> None:
        self._done += n
        if time.monotonic() - self._written >= _LEAST_SECONDS:
            self._write()

    def end(self) -> None:
        if not self._stage:
            return
        self._write(after=f", {time.monotonic() - self._began:.1f} s\n")
        self._stage, self._width = "", 0

    def _write(self, after: str = "") -> None:
        self._written = time.monotonic()
        text = self._stage
        if self._total:
            text += f": {self._done:,} of {self._total:,} {self._unit}"
        elif self._done:
            text += f": {self._done:,} {self._unit}"
        # What the longer line before it left is written over.
        self._stream.write(f"\r{text.ljust(self._width)}{after}")
        self._width = len(text)
        self._stream.flush()


def shown_on_terminal(progress: Progress | None) -> Progress:
    """Choose how a library call reports progress: ``progress`` if given, a line on a terminal, or
    nothing.
    """
    if progress is not None:
        return progress
    return Line(sys.stderr) if sys.stderr is not None and sys.stderr.isatty() else Silent()
