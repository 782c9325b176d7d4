"""The benchmark of planning times what it says, on a tiny layer."""

from __future__ import annotations

import statistics
import time

import pytest

from benchmarks.planning import METHODS, Shape, Subject, measure, table

SHAPE = Shape("tiny", 16, 40, 4, 2)


@pytest.fixture(scope="module")
def subject() -> Subject:
    return Subject(SHAPE, 16)


@pytest.mark.parametrize("method", METHODS)
def test_plans_and_fits_are_timed_beside_the_passes(method: str, subject: Subject) -> None:
    row = measure(subject, SHAPE, method, 0.3, n_sequences=32, n_repeats=2, clock=time.perf_counter)
    assert {len(each) for each in (row.plan, row.fit, row.passes, row.sums)} == {2}
    plan, fit, both = row.ratios()
    assert both == pytest.approx(plan + fit)
    assert plan == statistics.median(row.plan) / statistics.median(row.passes)
    assert row.ratio_with_sums() < both
    (line,) = (each for each in table([row]).splitlines() if "tiny" in each)
    assert f"{both:.2f}" in line
    assert ("missed" in line) == (both > 1)


def test_tokens_are_held_out_by_whole_sequences(subject: Subject) -> None:
    moments = subject.moments
    assert moments.fit.n_tokens == 13 * 256
    assert moments.held_out.n_tokens == 3 * 256
