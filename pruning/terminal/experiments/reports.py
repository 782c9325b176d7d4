"""Messages of commands that write a report row by row, and can resume it."""

from __future__ import annotations

from pathlib import Path

from rich.markup import escape

from projector.storage.resuming import Step
from projector.terminal.screen import Screen

_STEPS = {
    Step.START: "[b]{out}[/b] holds no results of this {what}: it starts from the beginning",
    Step.GO_ON: "Resuming the {what} in [b]{out}[/b]",
    Step.LEAVE: "The {what} in [b]{out}[/b] is finished: nothing is left to do",
}


def say_step(screen: Screen, step: Step, what: str, out: Path) -> None:
    """What a command does with ``--resume``.

    Args:
        what: what a run is called: ``sweep``.
    """
    screen.say(_STEPS[step].format(what=what, out=escape(str(out))))


def say_written(screen: Screen, step: Step, out: Path, page: str) -> None:
    """Where the report is, and which of its files to open."""
    wrote = "The report is in" if step is Step.LEAVE else "Wrote"
    screen.say(f"{wrote} [b]{escape(str(out))}[/b]: open {page} there in a browser")
