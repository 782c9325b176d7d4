"""Overlap of what goes with members of poles: known where planted, exact where it is drawn."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from statistics import fmean, pvariance

import pytest
import torch

from benchmarks import poles_or_not
from projector.errors import UserError
from pruning.layerwise.overlap import (
    check_same_layers,
    emptied,
    members_of,
    overlap,
    pooled,
    redundant_in,
    strata_of,
)
from pruning.methods.plan import LayerPlan, PruningPlan
from pruning.poles.poles import Control, Controls, Pole, Poles, PoleSettings

N = 8
# Neurons 0 to 2 and 3 to 4 are distinct poles, 5 and 6 a weak one, 7 is noise.
LABELS = torch.tensor([0, 0, 0, 1, 1, 2, 2, -1])


def planted(*, is_judged: bool = True) -> Poles:
    nothing = Control(5, 0.0, 0.0 if is_judged else None)
    poles = tuple(
        Pole(size, (first,), distinct=distinct if is_judged else None)
        for size, first, distinct in ((3, 1, True), (2, 3, True), (2, 5, False))
    )
    return Poles(
        0, "mlp_post", PoleSettings("correlation"), LABELS, torch.ones(N), poles, (), 0.1, None, {},
        Controls(nothing, nothing),
    )  # fmt: skip


def without(*gone: int) -> LayerPlan:
    return LayerPlan(N, tuple(j for j in range(N) if j not in gone))


def test_planted_poles_are_counted_and_chance_is_exact() -> None:
    poles = planted()
    members, redundant = members_of(poles), redundant_in(poles)
    assert members.nonzero()[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert redundant.nonzero()[:, 0].tolist() == [0, 2, 4]
    plan = without(0, 2, 4, 7)
    assert overlap(members, plan).n_both == 3
    assert overlap(redundant, plan).n_both == 3
    assert emptied(poles, plan).n_both == 0
    assert emptied(poles, without(0, 1, 2, 7)).n_both == 1
    # Every plan that removes four, each as likely.
    every = [without(*gone) for gone in combinations(range(N), 4)]
    for counted in (
        [overlap(members, each) for each in every],
        [overlap(redundant, each) for each in every],
        [emptied(poles, each) for each in every],
    ):
        counts = [each.n_both for each in counted]
        assert counted[0].expected == pytest.approx(fmean(counts))
        assert counted[0].variance == pytest.approx(pvariance(counts))
    # Half of each stratum goes; and where a stratum goes whole, chance has no choice.
    strata = strata_of([without(4, 5, 6, 7), without(5, 6, 7)])
    assert strata.tolist() == [0, 0, 0, 0, 1, 2, 2, 2]
    halves = torch.tensor([0] * 4 + [1] * 4)
    stratified = [each for each in every if sum(j < 4 for j in each.removed) == 2]
    counts = [overlap(members, each, halves).n_both for each in stratified]
    assert overlap(members, plan, halves).expected == pytest.approx(fmean(counts))
    assert overlap(members, plan, halves).variance == pytest.approx(pvariance(counts))
    assert overlap(members, without(0, 1, 2, 3), halves).score is None
    both = pooled([overlap(redundant, plan), overlap(redundant, without(1, 3, 5, 6))])
    assert (both.n_marked, both.n_both) == (6, 3)
    assert both.expected == pytest.approx(3)
    assert both.score == pytest.approx(0)
    assert both.ratio == pytest.approx(1)
    # Nothing goes: chance leaves no choice.
    assert overlap(members, without()).score is None


def test_what_can_not_be_compared_is_refused() -> None:
    with pytest.raises(UserError):
        members_of(planted(is_judged=False))
    with pytest.raises(UserError):
        check_same_layers([planted()], [without(), without()])


def test_the_benchmark_reads_plans_that_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Found:
        poles = (planted(),)

    monkeypatch.setattr(poles_or_not, "find_all", lambda *_: Found)
    poles_or_not.check_asked(tmp_path / "plans", "bundled", "c", poles_or_not.DEFAULT_SEQUENCES)
    for share, gone in ((0.25, (0, 2)), (0.5, (0, 2, 4, 7))):
        plan = PruningPlan("obs", share, 0, "uniform", 1, (without(*gone),))
        path = poles_or_not.path_of(tmp_path / "plans", ("obs", share, 0))
        path.write_text(json.dumps(plan.to_dict()), encoding="utf-8")
    options = ["bundled", "--projection", "p", "--calibration", "c", "--out", str(tmp_path)]
    options += ["--methods", "obs", "--seeds", "1", "--shares"]
    assert poles_or_not.main([*options, "0.25,0.5"]) == 0
    out = capsys.readouterr().out
    assert "| `obs` | 25 % | 0 | " in out
    assert " | 3 | 2 | 0.8 ± 0.6 | 2.67 |" in out
    assert "| 0 | 5 | 2 (1.2 ± 0.6), +1.2 | 3 (2.5 ± 0.7), +0.7 |" in out
    for wrong in ("0.2,x", "1"):
        assert poles_or_not.main([*options, wrong]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    # Plans of another text are not taken for this one's.
    assert poles_or_not.main([*options, "0.25", "--calibration", "other"]) == 2
    assert "calibration" in capsys.readouterr().err
