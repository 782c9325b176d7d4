"""How often checkpoints are written, by a clock that the test turns."""

from __future__ import annotations

import pytest

from projector import pace
from projector.pace import Pace


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(pace, "time", clock)
    return clock


@pytest.mark.parametrize("cost_s", [0.01, 0.4, 20.0])
def test_writing_takes_no_more_than_its_share(cost_s: float, clock: Clock) -> None:
    kept = Pace(5.0, 0.03, cost_s)
    began, spent, n = clock.now, 0.0, 0
    while clock.now < began + 50_000:
        clock.now += 0.5
        if kept.is_due:
            with kept.writing():
                clock.now += cost_s
            spent, n = spent + cost_s, n + 1
    assert spent <= 0.03 * (clock.now - began)
    # And no less often than that share, or every five seconds, allows.
    assert n >= 0.9 * (clock.now - began) / max(5.5, cost_s / 0.03 + cost_s)


def test_what_a_write_costs_decides_when_the_next_is_due(clock: Clock) -> None:
    kept = Pace(5.0, 0.03)
    clock.now += 5.1
    assert kept.is_due
    with kept.writing():
        clock.now += 3.0
    clock.now += 99.0
    assert not kept.is_due
    clock.now += 2.0
    assert kept.is_due
