"""Elimination removes what the others can stand in for best."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from pruning.methods import elimination
from pruning.methods.elimination import DAMPING, Exchange, damped, eliminate
from tests.pruning.losses import joint_loss
from tests.pruning.methods.plain import eliminated, hostile_moments

N, H, T = 9, 4, 60


def _sample(seed: int = 0, n: int = N) -> tuple[np.ndarray, np.ndarray]:
    """Correlated activations (T, N) with means that are not 0, and an output projection (H, N)."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(n, n)) * 0.6 + np.eye(n)
    rows = (rng.normal(size=(T, n)) + 0.4) @ mixing
    return rows, rng.normal(size=(H, n)) * rng.uniform(0.2, 2, n)


def _moments(rows: np.ndarray) -> Tensor:
    return torch.from_numpy(rows.T @ rows / len(rows))


def _loss(rows: np.ndarray, output: np.ndarray, kept: list[int]) -> float:
    """E‖W h − W' h_K‖² with the best W', fitted to the samples themselves."""
    target = rows @ output.T
    fitted, *_ = np.linalg.lstsq(rows[:, kept], target, rcond=None)
    return float(((target - rows[:, kept] @ fitted) ** 2).sum() / len(rows))


def _without(*removed: int, n: int = N) -> list[int]:
    return [j for j in range(n) if j not in removed]


@pytest.mark.parametrize("kept", [[0], [2, 5, 8], _without(3), _without(), [1, 0, 7]])
def test_joint_loss_is_that_of_the_best_weights(kept: list[int]) -> None:
    rows, output = _sample()
    found = joint_loss(_moments(rows), torch.from_numpy(output), torch.tensor(kept))
    assert found == pytest.approx(_loss(rows, output, kept), rel=1e-8, abs=1e-9)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_elimination_is_the_greedy_one_and_costs_what_it_says(seed: int) -> None:
    rows, output = _sample(seed)
    found = eliminate(_moments(rows), torch.from_numpy(output), N - 1)
    left, before = list(range(N)), 0.0
    for j, cost in zip(found.order.tolist(), found.costs.tolist(), strict=True):
        losses = {k: _loss(rows, output, [i for i in left if i != k]) for k in left}
        assert j == min(losses, key=lambda k: losses[k])
        assert cost == pytest.approx(losses[j] - before, rel=1e-6, abs=1e-9)
        left.remove(j)
        before = losses[j]


@pytest.mark.parametrize("n_tokens", [300, 40])
@pytest.mark.parametrize("seed", [0, 1])
def test_panels_remove_the_same_as_one_at_a_time(
    n_tokens: int, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    n = 70
    # Copies, dead neurons, outputs of nothing; panels, and rows that move, many times over.
    monkeypatch.setattr(elimination, "PANEL", 6)
    monkeypatch.setattr(elimination, "_ROWS", 5)
    monkeypatch.setattr(elimination, "_MORE_PRODUCTS", 2)
    moments = damped(hostile_moments(n, seed, n_tokens=n_tokens))
    output = torch.randn(8, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    output[:, 10] = 0
    for n_removed in (5, 6, 40, n - 1):
        found = eliminate(moments, output, n_removed)
        order, costs = eliminated(moments, output, n_removed)
        assert found.order.tolist() == order
        np.testing.assert_allclose(found.costs.numpy(), costs, rtol=1e-6, atol=1e-12)


def test_elimination_leaves_what_it_is_given() -> None:
    rows, output = _sample()
    moments, weights = _moments(rows), torch.from_numpy(output)
    copies = moments.clone(), weights.clone()
    eliminate(moments, weights, 5)
    Exchange(moments, weights, torch.tensor([0, 3])).trade(1, torch.tensor([0, 3]))
    assert torch.equal(moments, copies[0])
    assert torch.equal(weights, copies[1])


def test_removals_are_nested() -> None:
    rows, output = _sample()
    moments, weights = _moments(rows), torch.from_numpy(output)
    more, fewer = eliminate(moments, weights, 7), eliminate(moments, weights, 3)
    assert more.order[:3].tolist() == fewer.order.tolist()
    assert torch.equal(more.costs[:3], fewer.costs)
    assert eliminate(moments, weights, 0).order.tolist() == []


def test_what_is_said_twice_or_never_heard_goes_first_for_nothing() -> None:
    rows, output = _sample()
    rows[:, 4] = -2 * rows[:, 6]
    output[:, 2] = 0
    rows[:, 8] = 0
    found = eliminate(damped(_moments(rows)), torch.from_numpy(output), 4)
    first = set(found.order[:3].tolist())
    assert first in ({2, 8, 4}, {2, 8, 6})
    assert float(found.costs[:3].max()) < 0.05 * float(found.costs[3])


def test_damping_raises_the_diagonal_a_little() -> None:
    rows, _ = _sample()
    rows[:, 0] = 0
    moments = _moments(rows)
    own = np.diag(moments.numpy()).copy()
    assert own[0] == 0 < own[1:].min()
    expected = moments.numpy() + DAMPING * np.sort(own)[N // 2] * np.eye(N)
    np.testing.assert_allclose(damped(moments).numpy(), expected, rtol=1e-12)
    # One of huge activations does not damp the others.
    rows[:, 1] *= 1000
    assert damped(_moments(rows))[2, 2] == pytest.approx(float(damped(moments)[2, 2]), rel=1e-3)
    # Neurons that never fire, all of them.
    assert torch.linalg.inv(damped(torch.zeros(3, 3, dtype=torch.float64))).isfinite().all()


def _check_bookkeeping(exchange: Exchange, rows: np.ndarray, output: np.ndarray) -> None:
    kept = exchange.is_kept.nonzero()[:, 0].tolist()
    outside, gains = exchange.gains()
    assert outside.tolist() == _without(*kept)
    now = _loss(rows, output, kept)
    for j, gain in zip(outside.tolist(), gains.tolist(), strict=True):
        assert gain == pytest.approx(now - _loss(rows, output, [*kept, j]), rel=1e-6, abs=1e-9)
    inverse = np.linalg.inv(rows[:, kept].T @ rows[:, kept] / len(rows))
    np.testing.assert_allclose(exchange.swept.numpy()[np.ix_(kept, kept)], -inverse, atol=1e-8)
    fitted = np.linalg.lstsq(rows[:, kept], rows[:, outside.tolist()], rcond=None)[0]
    np.testing.assert_allclose(
        exchange.swept.numpy()[np.ix_(kept, outside.tolist())], fitted, atol=1e-8
    )


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_a_trade_is_the_best_there_is_and_only_ever_lowers_the_loss(seed: int) -> None:
    rows, output = _sample(seed)
    rng = np.random.default_rng(seed)
    kept = sorted(rng.choice(N, 4, replace=False).tolist())
    exchange = Exchange(_moments(rows), torch.from_numpy(output), torch.tensor(kept))
    _check_bookkeeping(exchange, rows, output)
    n_trades = 0
    for taken in [*rng.permutation(N).tolist(), *rng.permutation(N).tolist()]:
        kept = exchange.is_kept.nonzero()[:, 0].tolist()
        if taken in kept:
            continue
        givers = rng.choice(kept, 3, replace=False).tolist()
        before = _loss(rows, output, kept)
        losses = {g: _loss(rows, output, sorted({*kept, taken} - {g})) for g in givers}
        best = min(losses, key=lambda g: losses[g])
        traded = exchange.trade(taken, torch.tensor(givers))
        after = exchange.is_kept.nonzero()[:, 0].tolist()
        assert traded == (losses[best] < before)
        assert after == (sorted({*kept, taken} - {best}) if traded else kept)
        n_trades += traded
        _check_bookkeeping(exchange, rows, output)
    assert n_trades > 0


def test_a_trade_back_is_refused() -> None:
    rows, output = _sample(5)
    exchange = Exchange(_moments(rows), torch.from_numpy(output), torch.tensor([0, 1, 2, 3]))
    everyone = torch.tensor([0, 1, 2, 3])
    taken = next(j for j in range(4, N) if exchange.trade(j, everyone))
    given = next(j for j in range(4) if not exchange.is_kept[j])
    assert not exchange.trade(given, torch.tensor([taken]))
    assert exchange.is_kept[taken]


@pytest.mark.parametrize("j", [0, 4, 8])
def test_sweeping_twice_on_a_neuron_changes_nothing(j: int) -> None:
    rows, output = _sample()

    def after(*pivots: int) -> torch.Tensor:
        exchange = Exchange(_moments(rows), torch.from_numpy(output), torch.tensor([0, 1, 4]))
        for pivot in pivots:
            exchange.sweep(pivot)
        return exchange.swept

    assert not torch.allclose(after(j), after())
    torch.testing.assert_close(after(j, j), after())
    # Neurons are taken in any order.
    torch.testing.assert_close(after(j, 5), after(5, j))


def test_trades_by_panels_are_those_of_a_sweep_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    n, kept = 40, torch.arange(0, 40, 2)
    moments = damped(hostile_moments(n, 2))
    output = torch.randn(8, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    swept = []
    for panel in (1, 7, 64):
        monkeypatch.setattr(elimination, "PANEL", panel)
        exchange = Exchange(moments, output, kept)
        traded = 0
        for taken in [*range(1, n, 2), *range(0, n, 2)]:
            if not exchange.is_kept[taken]:
                traded += exchange.trade(taken, exchange.is_kept.nonzero()[:, 0])
        # Later panels, and rows that were swept twice within one.
        assert traded > 4
        assert joint_loss(moments, output, exchange.is_kept.nonzero()[:, 0]) < joint_loss(
            moments, output, kept
        )
        anew = Exchange(moments, output, exchange.is_kept.nonzero()[:, 0])
        scale = moments.diagonal().sqrt()
        torch.testing.assert_close(exchange.swept / scale, anew.swept / scale, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(exchange.gains(), anew.gains(), rtol=1e-5, atol=1e-8)
        swept.append(exchange.is_kept)
    assert all(torch.equal(each, swept[0]) for each in swept)
