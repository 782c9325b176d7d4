"""Who stands in for whom, and by what factor."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from pruning.methods import standins
from pruning.methods.elimination import damped, eliminate
from pruning.methods.method import Proposals
from pruning.methods.plan import LayerPlan
from pruning.methods.standins import (
    N_BY_CORRELATION,
    N_OF_POLE,
    N_ON_MAP,
    Surroundings,
    _hand_over,
    _predict,
    find_surroundings,
    plan_layer,
)
from tests.pruning.losses import joint_loss
from tests.pruning.methods.plain import handed_over, hostile_moments

H, T = 6, 800


def _rows(n: int, seed: int = 0, n_causes: int = 10) -> np.ndarray:
    """Activations (T, n) of few common causes, so that neurons can stand in for one another."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(n_causes, n)) * rng.uniform(0.2, 2, n)
    return (rng.normal(size=(T, n_causes)) + 0.3) @ mixing + 0.3 * rng.normal(size=(T, n))


def _moments(rows: np.ndarray) -> Tensor:
    return torch.from_numpy(rows.T @ rows / len(rows))


def _output(n: int, seed: int = 1) -> Tensor:
    return torch.randn(H, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _nothing(n: int) -> Proposals:
    """No poles and no map."""
    return Proposals(torch.full((n,), -1), (), torch.full((n, 2), torch.nan))


def _around(proposals: Proposals, moments: Tensor) -> list[set[int]]:
    found = find_surroundings(proposals, moments)
    assert found.index.shape == found.exists.shape
    result = []
    for row, exists in zip(found.index, found.exists, strict=True):
        members = row[exists].tolist()
        assert len(members) == len(set(members))
        result.append(set(members))
    return result


def _check(plan: LayerPlan, n: int, n_kept: int) -> None:
    assert plan.n_neurons == n
    assert len(plan.kept) == n_kept
    assert plan.problem() is None
    assert plan.groups == ()
    assert {each.neuron for each in plan.stand_ins} == set(plan.removed)
    pairs = [(each.neuron, each.by) for each in plan.stand_ins]
    assert len(pairs) == len(set(pairs))


# Who may stand in


def test_those_that_correlate_most_whatever_the_sign() -> None:
    n = 60
    rows = _rows(n)
    moments = _moments(rows)
    strength = np.abs(rows.T @ rows) / np.sqrt(np.outer((rows**2).sum(0), (rows**2).sum(0)))
    np.fill_diagonal(strength, -1)
    for j, found in enumerate(_around(_nothing(n), moments)):
        assert found == set(np.argsort(-strength[j])[:N_BY_CORRELATION].tolist())
    assert (rows.T @ rows < 0).any()


def test_members_of_the_pole_and_of_the_opposite_one() -> None:
    n = 120
    moments = _moments(_rows(n))
    labels = torch.full((n,), -1)
    labels[[0, 17, 30, 41]], labels[[60, 77, 119]], labels[[5, 6]] = 0, 1, 2
    proposals = Proposals(labels, (1, 0, None), torch.full((n, 2), torch.nan))
    plain = _around(_nothing(n), moments)
    for j, found in enumerate(_around(proposals, moments)):
        label = int(labels[j])
        mates = {0: {0, 17, 30, 41, 60, 77, 119}, 2: {5, 6}, -1: set()}[0 if label == 1 else label]
        assert found == plain[j] | (mates - {j})


def test_of_a_large_pole_those_that_correlate_most() -> None:
    n = 200
    rows = _rows(n)
    moments = _moments(rows)
    proposals = Proposals(torch.zeros(n, dtype=torch.int64), (None,), torch.full((n, 1), torch.nan))
    # They are among those that correlate most at all.
    assert _around(proposals, moments) == _around(_nothing(n), moments)
    assert N_OF_POLE <= N_BY_CORRELATION


def test_neighbours_on_the_map() -> None:
    n = 100
    moments = torch.eye(n, dtype=torch.float64) + 0.1 * _moments(_rows(n))
    positions = torch.arange(n, dtype=torch.float32)[:, None] * 2
    positions[50] = torch.nan
    proposals = Proposals(torch.full((n,), -1), (), positions)
    plain = _around(_nothing(n), moments)
    for j, found in enumerate(_around(proposals, moments)):
        others = [k for k in range(n) if k not in (j, 50)]
        others.sort(key=lambda k: abs(k - j))
        near = set(others[:N_ON_MAP])
        if j in (0, 20, 80, 99):
            assert found == plain[j] | near
        elif j == 50:
            # It has no place: nothing is near it.
            assert found == plain[j]
        else:
            # Where two are as near as each other, either will do.
            assert len(found - plain[j] - set(others[: N_ON_MAP + 1])) == 0


def test_in_a_small_layer_all_others_may() -> None:
    n = 10
    proposals = Proposals(
        torch.zeros(n, dtype=torch.int64), (0,), torch.zeros(n, 2, dtype=torch.float32)
    )
    for j, found in enumerate(_around(proposals, _moments(_rows(n)))):
        assert found == set(range(n)) - {j}


# What it costs


@pytest.mark.parametrize("centred", [True, False])
def test_one_stand_in_s_loss_is_the_formula_s(centred: bool) -> None:
    n = 8
    rows = _rows(n)
    if centred:
        rows = rows - rows.mean(axis=0)
    moments = _moments(rows)
    everyone = torch.ones(n, dtype=torch.bool)
    for j in range(n):
        for r in set(range(n)) - {j}:
            around = Surroundings(torch.full((n, 1), r), torch.ones(n, 1, dtype=torch.bool))
            rest, coefficients = _predict(moments, around, torch.tensor([j]), everyone)
            if centred:
                rho = np.corrcoef(rows[:, j], rows[:, r])[0, 1]
                expected = rows[:, j].var() * (1 - rho**2)
            else:
                both = (rows[:, j] * rows[:, r]).mean()
                expected = (rows[:, j] ** 2).mean() - both**2 / (rows[:, r] ** 2).mean()
            assert float(rest) == pytest.approx(expected)
            slope = (rows[:, j] * rows[:, r]).mean() / (rows[:, r] ** 2).mean()
            assert float(coefficients) == pytest.approx(slope)


def test_several_stand_ins_are_scored_jointly() -> None:
    n = 30
    rows = _rows(n)
    around = find_surroundings(_nothing(n), _moments(rows))
    is_left = torch.rand(n, generator=torch.Generator().manual_seed(2)) < 0.5
    asked = torch.arange(n)
    rest, coefficients = _predict(_moments(rows), around, asked, is_left)
    for j in range(n):
        by = [k for k in around.index[j].tolist() if is_left[k]]
        fitted, residual, *_ = np.linalg.lstsq(rows[:, by], rows[:, j], rcond=None)
        assert float(rest[j]) == pytest.approx(float(residual[0]) / T)
        places = is_left[around.index[j]] & around.exists[j]
        np.testing.assert_allclose(coefficients[j][places].numpy(), fitted, atol=1e-8)
        assert not coefficients[j][~places].any()


@pytest.mark.parametrize("centred", [True, False])
def test_of_two_the_cheaper_goes(centred: bool) -> None:
    for seed in range(20):
        rows = _rows(2, seed, n_causes=1)
        if centred:
            rows = rows - rows.mean(axis=0)
        output = _output(2, seed)
        second = (rows.T @ rows) / T
        rho = second[0, 1] ** 2 / second[0, 0] / second[1, 1]
        costs = [second[j, j] * (1 - rho) * float(output[:, j].pow(2).sum()) for j in range(2)]
        plan = plan_layer(_moments(rows), output, _nothing(2), 1)
        j, r = (0, 1) if costs[0] < costs[1] else (1, 0)
        assert plan.kept == (r,)
        (stand_in,) = plan.stand_ins
        assert (stand_in.neuron, stand_in.by) == (j, r)
        assert stand_in.coefficient == pytest.approx(second[j, r] / second[r, r], rel=1e-5)


@pytest.mark.parametrize("n_removed", [1, 5, 12])
def test_where_all_may_stand_in_handing_over_is_brain_surgery(n_removed: int) -> None:
    # Weights handed to all that are left, by their joint coefficients, are the best weights there
    # are: the same choice as another algorithm's.
    n = 20
    moments, output = damped(_moments(_rows(n))), _output(n)
    kept = _hand_over(moments, output, find_surroundings(_nothing(n), moments), n_removed)
    gone = set(range(n)) - set(kept.tolist())
    assert gone == set(eliminate(moments, output, n_removed).order.tolist())


@pytest.mark.parametrize("n_tokens", [300, 40])
@pytest.mark.parametrize("at_once", [1, 16])
def test_losses_computed_only_where_needed_choose_the_same(
    n_tokens: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    n = 46
    monkeypatch.setattr(standins, "_AT_ONCE", at_once)
    monkeypatch.setattr(standins, "_ROWS_AT_ONCE", 7)
    moments, output = damped(hostile_moments(n, 0, n_tokens=n_tokens)), _output(n)
    # More that cost nothing than are computed anew at once.
    output[:, 20:40] = 0
    around = find_surroundings(_nothing(n), moments)
    kept = _hand_over(moments, output, around, 32)
    assert tuple(kept.tolist()) == handed_over(moments, output, around, 32)
    free = set(range(n)) - set(_hand_over(moments, output, around, 10).tolist())
    assert free <= {*range(20, 40), 7}


# The plan


@pytest.mark.parametrize("scale", [1.0, -1.0, 2.5, -0.4])
def test_copies_and_opposites_go_first_for_nothing(scale: float) -> None:
    n = 60
    rows = _rows(n, n_causes=40)
    pairs = {3: 40, 11: 12, 59: 0}
    for j, r in pairs.items():
        rows[:, j] = scale * rows[:, r]
    moments, output = _moments(rows), _output(n)
    plan = plan_layer(moments, output, _nothing(n), n - 3)
    _check(plan, n, n - 3)
    for j, r in pairs.items():
        gone, stays = (j, r) if j in plan.removed else (r, j)
        assert gone in plan.removed
        assert stays in plan.kept
        expected = scale if gone == j else 1 / scale
        for each in plan.stand_ins:
            if each.neuron == gone:
                own = expected if each.by == stays else 0
                assert each.coefficient == pytest.approx(own, abs=2e-4)
    # What is written without them is what was written.
    written, new = rows @ output.T.numpy(), rows[:, plan.kept] @ output.T.numpy()[list(plan.kept)]
    for each in plan.stand_ins:
        new += each.coefficient * np.outer(rows[:, each.by], output[:, each.neuron].numpy())
    np.testing.assert_allclose(new, written, atol=1e-3 * written.std())


def test_copies_that_no_correlation_proposes_are_found_by_pole_and_map() -> None:
    # More copies than are proposed by correlation: all but one of them go.
    n, n_copies = 120, 70
    rows = _rows(n, n_causes=60)
    rows[:, 1:n_copies] = rows[:, :1]
    rows[:, 1:n_copies:2] *= -1
    plan = plan_layer(_moments(rows), _output(n), _nothing(n), n - n_copies + 1)
    _check(plan, n, n - n_copies + 1)
    assert sum(j < n_copies for j in plan.kept) == 1


@pytest.mark.parametrize("n_kept", [1, 2, 20, 59, 60, 61])
def test_every_neuron_that_goes_has_a_stand_in_that_stays(n_kept: int) -> None:
    n = 60
    rows = _rows(n)
    rows[:, 7] = 0
    rows[:, 8] = 1.5
    moments = _moments(rows)
    plan = plan_layer(moments, _output(n), _nothing(n), n_kept)
    _check(plan, n, min(n, n_kept))
    assert all(np.isfinite(each.coefficient) for each in plan.stand_ins)
    if n_kept < n - 1:
        assert 7 in plan.removed
    if n_kept == 1:
        # Whoever is left stands in for all, also for those it is no neighbour of.
        (by,) = plan.kept
        for each in plan.stand_ins:
            slope = float(moments[each.neuron, by] / moments[by, by])
            assert each.coefficient == pytest.approx(slope, rel=1e-5, abs=1e-9)


def test_coefficients_are_the_best_ones_for_all_stand_ins_together() -> None:
    n = 60
    rows = _rows(n)
    plan = plan_layer(_moments(rows), _output(n), _nothing(n), 35)
    for j in plan.removed:
        mine = {each.by: each.coefficient for each in plan.stand_ins if each.neuron == j}
        by = sorted(mine)
        fitted, *_ = np.linalg.lstsq(rows[:, by], rows[:, j], rcond=None)
        np.testing.assert_allclose([mine[r] for r in by], fitted, atol=1e-3)


@pytest.mark.parametrize("with_map", [False, True])
def test_the_order_of_neurons_does_not_matter(with_map: bool) -> None:
    n = 70
    moments, output = _moments(_rows(n)), _output(n)
    generator = torch.Generator().manual_seed(3)
    proposals = _nothing(n)
    if with_map:
        labels = torch.randint(-1, 3, (n,), generator=generator)
        proposals = Proposals(labels, (2, None, 0), torch.randn(n, 2, generator=generator))
    order = torch.randperm(n, generator=generator)
    plan = plan_layer(moments, output, proposals, 40)
    other = plan_layer(
        moments[order][:, order],
        output[:, order],
        Proposals(proposals.labels[order], proposals.opposites, proposals.positions[order]),
        40,
    )
    assert {int(order[j]) for j in other.kept} == set(plan.kept)
    found = {(int(order[s.neuron]), int(order[s.by])): s.coefficient for s in other.stand_ins}
    expected = {(s.neuron, s.by): s.coefficient for s in plan.stand_ins}
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("n_kept", [45, 30, 15])
def test_it_loses_less_than_chance_and_trades_only_lower_the_loss(n_kept: int) -> None:
    n = 60
    for seed in range(3):
        moments, output = _moments(_rows(n, seed)), _output(n, seed)
        regular = damped(moments)
        plan = plan_layer(moments, output, _nothing(n), n_kept)
        lost = joint_loss(regular, output, plan.kept_index)
        around = find_surroundings(_nothing(n), moments)
        handed = _hand_over(regular, output, around, n - n_kept)
        assert lost <= joint_loss(regular, output, handed) * (1 + 1e-9)
        for draw in range(5):
            rng = np.random.default_rng(draw)
            chance = torch.from_numpy(rng.choice(n, n_kept, replace=False))
            assert lost < 0.8 * joint_loss(regular, output, chance)


def test_no_trade_is_left_that_would_lose_less() -> None:
    n = 14
    for seed in range(5):
        moments, output = _moments(_rows(n, seed, n_causes=4)), _output(n, seed)
        plan = plan_layer(moments, output, _nothing(n), 6)
        regular = damped(moments)
        lost = joint_loss(regular, output, plan.kept_index)
        for taken in plan.removed:
            for given in plan.kept:
                kept = torch.tensor(sorted({*plan.kept, taken} - {given}))
                assert joint_loss(regular, output, kept) >= lost * (1 - 1e-6)


def test_what_it_is_given_is_left_as_it_was() -> None:
    n = 40
    moments, output, proposals = _moments(_rows(n)), _output(n), _nothing(n)
    copies = moments.clone(), output.clone()
    first = plan_layer(moments, output, proposals, 20)
    assert torch.equal(moments, copies[0])
    assert torch.equal(output, copies[1])
    assert plan_layer(moments, output, proposals, 20) == first
