"""How a library call tells of its progress."""

from __future__ import annotations

import io
import sys

import pytest

from projector.progress import Line, Silent, shown_on_terminal


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_tells_the_stage_and_how_far_it_is() -> None:
    stream = io.StringIO()
    line = Line(stream)
    line.begin("Loading the model", None, "")
    line.begin("Gathering", 2000, "tokens")
    for _ in range(4):
        line.advance(500)
    line.end()
    # The last stage ended: nothing more is written.
    line.end()
    stages = stream.getvalue().split("\n")[:-1]
    assert len(stages) == 2
    # What stands on the screen: the end of each line.
    assert stages[0].rpartition("\r")[2].startswith("Loading the model, ")
    assert stages[1].rpartition("\r")[2].startswith("Gathering: 2,000 of 2,000 tokens, ")


def test_a_shorter_text_leaves_nothing_of_a_longer_one() -> None:
    stream = io.StringIO()
    line = Line(stream)
    line.begin("Reading", None, "documents")
    line._width = 40
    line.end()
    assert stream.getvalue().rpartition("\r")[2].partition(", ")[0] == "Reading".ljust(40)


def test_progress_is_told_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert isinstance(shown_on_terminal(None), Silent)
    monkeypatch.setattr(sys, "stderr", _Terminal())
    assert isinstance(shown_on_terminal(None), Line)
    given = Silent()
    assert shown_on_terminal(given) is given
