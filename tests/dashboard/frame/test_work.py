"""What is said of long work."""

from __future__ import annotations

from typing import Any

import pytest

from dashboard.frame import work
from dashboard.frame.work import Work


class Bar:
    """Takes down what is drawn."""

    def __init__(self) -> None:
        self.drawn: list[tuple[float, str]] = []

    def progress(self, share: float, text: str) -> None:
        assert 0.0 <= share <= 1.0
        self.drawn.append((share, text))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which stands still."""
    now = [100.0]

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return now[0]

    monkeypatch.setattr(work, "time", Clock)
    return now


def made(title: str = "Loading") -> tuple[Work, Bar]:
    bar: Any = Bar()
    return Work(bar, title), bar


def test_work_without_an_end_counts(clock: list[float]) -> None:
    each, bar = made()
    assert bar.drawn[-1] == (0.0, "Loading …")
    each.begin("Reading", None, "")
    for _ in range(10):
        clock[0] += 1
        each.advance(10)
    assert bar.drawn[-1] == (0.0, "Reading … 100")
    each.begin("Reading", None, "documents")
    clock[0] += 1
    each.advance(1200)
    assert bar.drawn[-1] == (0.0, "Reading … 1,200 documents")


def test_work_with_an_end_shows_its_share_and_the_time_left(clock: list[float]) -> None:
    each, bar = made()
    each.begin("Running", 200, "tokens")
    assert bar.drawn[-1] == (0.0, "Running … 0 of 200 tokens")
    clock[0] += 10
    each.advance(50)
    assert bar.drawn[-1] == (0.25, "Running … 50 of 200 tokens, 30 s left")
    each.end()
    assert bar.drawn[-1][0] == 1.0
    # More than was said is all of it.
    each.advance(500)
    clock[0] += 1
    each.advance(1)
    assert bar.drawn[-1][0] == 1.0


def test_a_new_stage_begins_anew(clock: list[float]) -> None:
    each, bar = made()
    each.begin("First", 10, "steps")
    clock[0] += 60
    each.advance(10)
    each.begin("Second", 4, "models")
    assert bar.drawn[-1] == (0.0, "Second … 0 of 4 models")
    clock[0] += 2
    each.advance(1)
    assert bar.drawn[-1] == (0.25, "Second … 1 of 4 models, 6 s left")


def test_quick_steps_are_not_each_drawn(clock: list[float]) -> None:
    each, bar = made()
    each.begin("Running", 10_000, "tokens")
    before = len(bar.drawn)
    for _ in range(10_000):
        clock[0] += 0.001
        each.advance(1)
    # Ten seconds at most ten times a second, and not so seldom that it seems to stand.
    assert 50 <= len(bar.drawn) - before <= 101


def test_a_stop_comes_through(clock: list[float]) -> None:
    class StopAsked(BaseException):
        pass

    each, bar = made()
    each.begin("Running", 10, "tokens")

    def stop(share: float, text: str) -> None:
        raise StopAsked

    bar.progress = stop  # type: ignore[method-assign]
    clock[0] += 1
    with pytest.raises(StopAsked):
        each.advance(1)
