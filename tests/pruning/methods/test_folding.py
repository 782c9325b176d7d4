"""Folding puts a group of neurons into one."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor

from projector.model.architecture.weights import MlpWeights
from pruning.methods.folding import plan_layer
from pruning.methods.plan import LayerPlan

H = 6


def _weights(rows: Tensor, bias: Tensor | None = None, n_inputs: int = 1) -> MlpWeights:
    return MlpWeights((rows,) * n_inputs, (bias,) * n_inputs, torch.randn(H, len(rows)), None)


def _clusters(plan: LayerPlan) -> set[frozenset[int]]:
    return {
        frozenset(j for j, group in enumerate(plan.groups) if group == each)
        for each in range(len(plan.kept))
    }


def _check(plan: LayerPlan, n: int, n_kept: int) -> None:
    assert plan.problem() is None
    assert plan.n_neurons == n
    assert len(plan.kept) == n_kept
    # Each neuron that names a group is of it.
    assert [plan.groups[j] for j in plan.kept] == list(range(n_kept))


def test_neurons_of_like_weights_are_folded_and_named_by_the_one_nearest_the_mean() -> None:
    torch.manual_seed(1)
    centres = 10 * torch.randn(3, H)
    # In each cluster, offsets around the mean; the one of offset 0 is nearest.
    offsets = torch.tensor([1.0, 0.0, -1.0])
    rows = torch.stack([centres[i % 3] + offsets[i // 3] for i in range(9)])
    plan = plan_layer(_weights(rows), 3, seed=0)
    _check(plan, 9, 3)
    assert _clusters(plan) == {frozenset({i, i + 3, i + 6}) for i in range(3)}
    assert plan.kept == (3, 4, 5)


def test_all_that_makes_a_neuron_counts() -> None:
    rows = torch.zeros(4, H)
    bias = torch.tensor([0.0, 5.0, 0.1, 5.1])
    plan = plan_layer(_weights(rows, bias), 2, seed=0)
    assert _clusters(plan) == {frozenset({0, 2}), frozenset({1, 3})}
    # Alike by the gate, apart by the up rows; what they write with does not count.
    gate, up = torch.zeros(4, H), torch.zeros(4, H)
    up[2:] = 3
    output = torch.zeros(H, 4)
    output[:, ::2] = 100
    plan = plan_layer(MlpWeights((gate, up), (None, None), output, None), 2, seed=0)
    assert _clusters(plan) == {frozenset({0, 1}), frozenset({2, 3})}


@pytest.mark.parametrize("n_kept", [3, 4, 7, 11])
def test_fewer_distinct_neurons_than_clusters(n_kept: int) -> None:
    torch.manual_seed(1)
    rows = torch.randn(3, H).repeat(4, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plan = plan_layer(_weights(rows), n_kept, seed=0)
    _check(plan, 12, n_kept)
    # Only equal ones are averaged.
    assert all(len({j % 3 for j in members}) == 1 for members in _clusters(plan))


def test_it_repeats_with_the_seed() -> None:
    torch.manual_seed(1)
    weights = _weights(torch.randn(60, H), torch.randn(60), n_inputs=2)
    plans = [plan_layer(weights, 20, seed) for seed in (0, 0, 1)]
    assert plans[0] == plans[1] != plans[2]
    for plan in plans:
        _check(plan, 60, 20)


def test_with_nothing_to_fold_nothing_is_grouped() -> None:
    assert plan_layer(_weights(torch.randn(5, H)), 5, seed=0) == LayerPlan(5, (0, 1, 2, 3, 4))


def test_half_precision_weights() -> None:
    torch.manual_seed(1)
    plan = plan_layer(_weights(torch.randn(12, H).to(torch.bfloat16)), 5, seed=0)
    _check(plan, 12, 5)
