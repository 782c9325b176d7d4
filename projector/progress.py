"""How work tells of its progress: the command line draws it, a library call keeps silent."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told of stages that follow one another."""

    def begin(self, stage: str, total: int | None, unit: str) -> None:
        """A stage of ``total`` units (None: unknown) begins; the one before it has ended."""

    def advance(self, n: int) -> None:
        """``n`` more units are done."""

    def end(self) -> None:
        """The last stage has ended."""


class Silent:
    """Progress that nobody watches."""

    def begin(self, stage: str, total: int | None, unit: str) -> None:
        pass

    def advance(self, n: int) -> None:
        pass

    def end(self) -> None:
        pass
