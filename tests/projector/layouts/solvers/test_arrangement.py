"""Linear arrangements: never worse than their starts, and right where the truth is known."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform
from torch import Tensor

from projector.layouts.costs import arrangement_cost
from projector.layouts.solvers import arrangement as room
from projector.layouts.solvers.arrangement import (
    arrange,
    improve_order,
    leaf_order,
    positions_of,
    random_order_cost,
    ranks_of,
    spectral_order,
)
from projector.layouts.solving import place


def random_correlation(n: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.corrcoef(torch.randn(n, 25, generator=generator).double())


def planted_chain(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """ρ = exp(−|i − j|/10), shuffled; and the permutation that shuffled it."""
    place = torch.arange(n).double()
    rho = torch.exp(-(place[:, None] - place).abs() / 10)
    shuffle = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return rho[shuffle][:, shuffle], shuffle


def is_chain(order: Tensor, shuffle: Tensor) -> bool:
    found = shuffle[order].tolist()
    return found in (sorted(found), sorted(found, reverse=True))


@pytest.mark.parametrize("n", [30, 150])
def test_a_planted_chain_is_recovered(n: int) -> None:
    rho, shuffle = planted_chain(n)
    assert is_chain(arrange(rho).order, shuffle)
    assert is_chain(improve_order(torch.randperm(12), planted_chain(12)[0]), planted_chain(12)[1])


def test_leaves_keep_groups_together() -> None:
    n, shuffle = 40, torch.randperm(40, generator=torch.Generator().manual_seed(3))
    group = torch.arange(n) // 10
    rho = torch.where(group[:, None] == group, 0.8, 0.0).fill_diagonal_(1.0)
    found = shuffle[leaf_order(rho[shuffle][:, shuffle])]
    assert sorted(found.tolist()) == list(range(n))
    assert len(group[found].diff().nonzero()) == 3


def test_leaves_of_a_wide_layer_are_not_brought_into_their_optimal_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("of 1,500 neurons this can take a minute")

    # What scipy's linkage itself would call.
    monkeypatch.setattr("scipy.cluster.hierarchy.optimal_leaf_ordering", refuse)
    assert sorted(leaf_order(random_correlation(1500)).tolist()) == list(range(1500))


def test_turned_leaves_are_nearer_than_the_trees_own() -> None:
    for seed in range(5):
        rho = random_correlation(60, seed)
        apart = (1 - rho).fill_diagonal_(0)
        order = leaf_order(rho)
        tree = linkage(squareform(apart.numpy(), checks=False), method="average")
        plain = torch.from_numpy(leaves_list(tree).astype("int64"))
        assert sorted(order.tolist()) == list(range(60))
        assert apart[order[:-1], order[1:]].sum() < apart[plain[:-1], plain[1:]].sum()


def test_a_planted_chain_is_recovered_by_training() -> None:
    rho, shuffle = planted_chain(40)
    positions = place(rho, objective="linear", solver="adamw")
    assert is_chain(torch.argsort(positions[:, 0]), shuffle)


def test_training_does_not_collapse() -> None:
    rho = random_correlation(20)
    positions = place(rho, objective="linear", solver="adamw", lr=0.05)
    assert len(set(positions[:, 0].tolist())) == 20
    trained = arrangement_cost(ranks_of(torch.argsort(positions[:, 0])), rho)
    random, best = random_order_cost(rho), arrange(rho).cost
    assert trained - best < 0.4 * (random - best)


@pytest.mark.parametrize("seed", range(5))
def test_never_worse_than_its_starts_and_locally_best(seed: int) -> None:
    n = 14
    rho = random_correlation(n, seed)
    found = arrange(rho)
    assert found.cost <= min(found.spectral_cost, found.leaf_cost) + 1e-9
    assert found.cost == pytest.approx(arrangement_cost(found.ranks, rho))
    assert found.spectral_cost == pytest.approx(
        arrangement_cost(ranks_of(spectral_order(rho)), rho)
    )
    order = found.order.tolist()
    assert sorted(order) == list(range(n))
    # No single neuron gains by standing elsewhere: every move is tried by brute force.
    for neuron, place_of in itertools.product(range(n), range(n)):
        rest = [i for i in order if i != neuron]
        moved = torch.tensor([*rest[:place_of], neuron, *rest[place_of:]])
        assert arrangement_cost(ranks_of(moved), rho) >= found.cost - 1e-9


def test_close_to_the_best_of_all_orders() -> None:
    rho = random_correlation(7, seed=3)
    best = min(
        arrangement_cost(ranks_of(torch.tensor(order)), rho)
        for order in itertools.permutations(range(7))
    )
    assert arrange(rho).cost <= 1.01 * best


def test_random_cost_is_the_mean_over_orders() -> None:
    rho = random_correlation(5)
    costs = [
        arrangement_cost(torch.tensor(ranks), rho) for ranks in itertools.permutations(range(5))
    ]
    assert random_order_cost(rho) == pytest.approx(sum(costs) / len(costs))


def test_positions_are_evenly_spaced_ranks() -> None:
    positions = place(random_correlation(9), objective="linear")[:, 0].sort().values
    expected = torch.linspace(0, math.sqrt(9), 9)
    torch.testing.assert_close(positions, expected)
    assert positions_of(torch.tensor([0])).tolist() == [[0.0]]


def test_lanczos_finds_the_order_that_eigh_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    rho, _ = planted_chain(120)
    dense = spectral_order(rho)
    monkeypatch.setattr(room, "_MOST_FOR_DENSE", 10)
    assert torch.equal(spectral_order(rho), dense)
