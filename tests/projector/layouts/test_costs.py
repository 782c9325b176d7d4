"""Costs against their formulas, written as loops."""

from __future__ import annotations

import math

import pytest
import torch

from projector.layouts import costs as objectives
from projector.layouts.costs import (
    arrangement_cost,
    dissimilarity,
    row_blocks,
    stress,
    stress_figures,
    stress_sums,
)


def loop_stress(points: torch.Tensor, target: torch.Tensor, p: float) -> float:
    n = len(points)
    pairs = [(i, j) for i in range(n) for j in range(i + 1, n)]
    return sum(
        (float((points[i] - points[j]).abs().pow(p).sum() ** (1 / p)) - float(target[i, j])) ** 2
        for i, j in pairs
    ) / len(pairs)


@pytest.mark.parametrize("p", [1.0, 2.0, 3.5])
def test_stress_is_its_formula(p: float) -> None:
    points = torch.randn(9, 3).double()
    target = dissimilarity(torch.corrcoef(torch.randn(9, 30).double()))
    expected = loop_stress(points, target, p)
    assert float(stress(points, target, p=p)) == pytest.approx(expected, rel=1e-9)
    assert stress_figures(points, target, p=p)[0] == pytest.approx(expected, rel=1e-9)


def test_stress_worked_by_hand() -> None:
    # A 3-4-5 triangle that should be equilateral with side 4.
    points = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
    target = torch.full((3, 3), 4.0).fill_diagonal_(0)
    value, value_1 = stress_figures(points, target)
    assert value == pytest.approx((1 + 0 + 1) / 3)
    assert value_1 == pytest.approx(math.sqrt(2 / (9 + 16 + 25)))


def test_stress_gradient_is_right_and_finite_where_points_coincide() -> None:
    target = dissimilarity(torch.corrcoef(torch.randn(6, 30).double()))
    points = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: stress(x, target), points)
    together = torch.zeros(6, 2, dtype=torch.float64, requires_grad=True)
    stress(together, target).backward()
    assert together.grad is not None
    assert together.grad.isfinite().all()


def test_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    points, target = torch.randn(50, 3), dissimilarity(torch.corrcoef(torch.randn(50, 90)))
    rho, ranks = 1 - target, torch.randperm(50)
    whole = stress_sums(points, target), arrangement_cost(ranks, rho)
    monkeypatch.setattr(objectives, "_BLOCK_ENTRIES", 350)
    assert len(list(row_blocks(50))) == 8
    assert stress_sums(points, target) == pytest.approx(whole[0], rel=1e-6)
    assert arrangement_cost(ranks, rho) == pytest.approx(whole[1], rel=1e-12)


def test_arrangement_cost_is_its_formula() -> None:
    rho = torch.corrcoef(torch.randn(8, 30).double())
    ranks = torch.randperm(8)
    expected = sum(
        abs(int(ranks[i]) - int(ranks[j])) * (1 + float(rho[i, j])) / 2
        for i in range(8)
        for j in range(8)
    )
    assert arrangement_cost(ranks, rho) == pytest.approx(expected)


def test_one_neuron_and_none_apart() -> None:
    assert stress_figures(torch.zeros(1, 3), torch.zeros(1, 1)) == (0.0, None)
    assert float(stress(torch.zeros(1, 3), torch.zeros(1, 1))) == 0


def test_dissimilarity_never_leaves_zero_and_two() -> None:
    rho = torch.tensor([[1.0000002, -1.0], [-1.0, 1.0]])
    assert dissimilarity(rho).tolist() == [[0.0, 2.0], [2.0, 0.0]]
