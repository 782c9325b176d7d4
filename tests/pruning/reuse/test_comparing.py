"""What is compared, by which error, and when reuse is said to win."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from pruning.reuse.comparing import compare_rows, report_of, standard_error
from pruning.reuse.records import (
    EARLY_WRITE,
    MIXED,
    MIXED_RANDOM,
    RANDOM_PARTNERS,
    REMOVAL,
    REUSE,
    ReuseRow,
)
from pruning.reuse.showing.words import answer, error_words

_noise = np.random.default_rng(0).normal(size=(2, 30))


def row(method: str, seed: int, level: float, n_partners: int = 0, **more: object) -> ReuseRow:
    """Nats about a level; all methods vary alike over windows, so that differences are exact."""
    shared = np.linspace(2, 4, 30) + level + 0.01 * _noise[seed] * (method == REUSE)
    values = {"share": 0.1, "seed": seed, "n_partners": n_partners, "perplexity": 9.0}
    values |= {"nll_windows": tuple(shared.tolist()), "operations": 90, "operations_dense": 100}
    values |= {"n_changed": 5, "r2": None, "seconds": 1.0, **more}
    return ReuseRow(method, **values)  # type: ignore[arg-type]


def rows(removal: float, obs: float) -> list[ReuseRow]:
    found = []
    for seed in (0, 1):
        found += [row(REUSE, seed, 0.5, 1, counted=80, products=80), row(REMOVAL, seed, removal)]
        found += [row(RANDOM_PARTNERS, seed, 0.5, 1), row(EARLY_WRITE, seed, 0.6, 1)]
        found.append(row("obs", seed, obs))
    return found


def test_errors_are_of_windows_and_seeds() -> None:
    one = standard_error(_noise[:1])
    assert one is not None
    assert math.isclose(one, _noise[0].std(ddof=1) / math.sqrt(30))
    both = standard_error(_noise)
    assert both is not None
    windows = _noise.mean(axis=0).var(ddof=1) / 30
    assert math.isclose(both**2, windows + _noise.mean(axis=1).var(ddof=1) / 2)
    assert standard_error(np.zeros((2, 1))) is None


def test_reuse_wins_where_it_beats_removal_and_the_chapter_by_two_errors() -> None:
    for removal, obs, wins in ((0.6, 0.6, True), (0.6, 0.4, False), (0.5, 0.6, False)):
        compared = compare_rows(rows(removal, obs), "obs")
        found = {each.against: each for each in compared if each.method == REUSE}
        (early,) = (each for each in compared if each.method == EARLY_WRITE)
        assert early.against == REMOVAL
        assert early.loses == (removal == 0.5)
        assert list(found) == [REMOVAL, "obs", RANDOM_PARTNERS, EARLY_WRITE]
        assert math.isclose(found[REMOVAL].difference, 0.5 - removal, abs_tol=0.01)
        assert found[EARLY_WRITE].wins
        assert not found[RANDOM_PARTNERS].wins
        assert not found[RANDOM_PARTNERS].loses
        assert found["obs"].loses == (obs == 0.4)
        report = report_of({}, {}, rows(removal, obs), "obs")
        assert report.wins == wins
        assert report.flop_check == {REUSE: {"counted": 80, "formula": 80}}
        assert report.as_dict()["comparisons"][0]["against"] == REMOVAL


def test_rows_without_a_figure_and_other_seeds_are_left_out() -> None:
    given = rows(0.6, 0.6)
    given.append(row(REUSE, 0, 0.1, 4))
    given[0] = row(REUSE, 0, 0.5, 1, reason="it is broken", nll_windows=())
    found = compare_rows(given, "obs")
    # Random partners of one are no control for four.
    assert {each.against for each in found if each.n_partners == 4} == {REMOVAL, "obs"}
    given.append(row(RANDOM_PARTNERS, 0, 0.3, 4))
    (several,) = (
        each
        for each in compare_rows(given, "obs")
        if (each.n_partners, each.against) == (4, RANDOM_PARTNERS)
    )
    assert math.isclose(several.difference, -0.2, abs_tol=0.01)
    again = ReuseRow.from_dict(given[1].as_dict())
    assert again == given[1]
    assert again.saved == 1 - 0.9


def test_mixed_wins_beside_its_own_control() -> None:
    given = rows(0.4, 0.4)
    for seed in (0, 1):
        given += [row(MIXED, seed, 0.3, 1, n_reused=3, n_removed=2)]
        given += [row(MIXED_RANDOM, seed, 0.35, 1)]
    report = report_of({}, {}, given, "obs")
    found = {each.against: each for each in report.comparisons if each.method == MIXED}
    assert list(found) == [REMOVAL, "obs", MIXED_RANDOM]
    # Reuse throughout loses here.
    assert report.wins
    assert ReuseRow.from_dict(given[-2].as_dict()).n_reused == 3
    # Where nothing is worth reusing, mixed is removal.
    for each in list(given):
        if each.method == REMOVAL:
            given.append(row(MIXED, each.seed, 0.4, 1, share=0.2))
            given.append(row(REMOVAL, each.seed, 0.4, share=0.2))
    same = answer(report_of({}, {}, given, "obs"))
    assert "the same" in same
    assert "20" in same
    # A row of a report that does not tell.
    old = {k: v for k, v in given[0].as_dict().items() if k not in ("n_reused", "n_removed")}
    assert ReuseRow.from_dict(old).n_reused is None


def test_few_windows_are_named_with_their_errors() -> None:
    many = rows(0.6, 0.6)
    few = [replace(each, nll_windows=each.nll_windows[:9]) for each in many]
    said = {
        n: error_words(report_of({"n_seeds": 2}, {}, of, "obs")) for n, of in ((9, few), (30, many))
    }
    assert "9 windows" in said[9]
    assert "windows are" not in said[30]
