"""Tokens whose norm is many times the usual one."""

from __future__ import annotations

import pytest
import torch

from projector.residual.outliers import TIMES_USUAL, describe_outliers, find_outliers


def test_a_first_token_and_a_delimiter_stand_out() -> None:
    norms = torch.tensor([300.0, 1.0, 1.3, 0.8, 1.1, 90.0, 1.2, 0.9])
    assert find_outliers(norms) == [0, 5]
    first = describe_outliers(norms)[0]
    assert (first.position, first.reading, first.norm) == (0, 0, 300.0)
    # Of eight norms the lower of the middle two is 1.1.
    assert first.times_usual == pytest.approx(300 / 1.1)


def test_ordinary_spread_has_no_outliers() -> None:
    generator = torch.Generator().manual_seed(0)
    norms = torch.randn(500, generator=generator).mul(0.3).exp()
    assert find_outliers(norms) == []
    assert find_outliers(7 * norms) == []
    assert find_outliers(torch.ones(9)) == []


def test_the_bound_itself_is_usual() -> None:
    assert find_outliers(torch.tensor([TIMES_USUAL, 1.0, 1.0])) == []
    assert find_outliers(torch.tensor([TIMES_USUAL + 0.01, 1.0, 1.0])) == [0]


def test_fewer_than_half_cannot_hide_one_another() -> None:
    assert find_outliers(torch.tensor([50.0, 60.0, 1.0, 1.0, 1.0])) == [0, 1]
    assert find_outliers(torch.tensor([50.0, 1.0])) == [0]


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_to_compare(n: int) -> None:
    assert find_outliers(torch.full((n,), 9.0)) == []
    assert describe_outliers(torch.full((n,), 9.0)) == ()


def test_one_layer_is_enough_and_is_named() -> None:
    norms = torch.tensor([[1.0, 1.0, 1.0, 1.0], [30.0, 3.0, 3.0, 90.0], [80.0, 4.0, 4.0, 4.0]])
    assert find_outliers(norms) == [0, 3]
    assert [(each.position, each.reading) for each in describe_outliers(norms)] == [(0, 2), (3, 1)]


def test_norms_that_are_not_finite_are_outliers_and_do_not_count() -> None:
    norms = torch.tensor([float("inf"), float("nan"), 1.0, 1.0, 1.0])
    assert find_outliers(norms) == [0, 1]
    assert [each.norm for each in describe_outliers(norms)] == [None, None]
    assert [each.times_usual for each in describe_outliers(norms)] == [None, None]


def test_zeros_are_usual() -> None:
    assert find_outliers(torch.zeros(4)) == []
    assert find_outliers(torch.tensor([0.0, 0.0, 0.0, 2.0])) == [3]
