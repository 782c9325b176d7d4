"""The sentence on growth says what the sums are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from projector.residual.contrast.growth import average_growth, measure_growth
from projector.residual.contrast.words import growth_sentence


def normal(seed: int) -> Tensor:
    return torch.randn(400, 50, generator=torch.Generator().manual_seed(seed))


def blocks(updates: list[Tensor], start: Tensor) -> list[dict[str, Any]]:
    found, stream = [], start
    for update in updates:
        found.append(measure_growth(stream, None, None, stream + update).as_dict())
        stream = stream + update
    return found


def test_gains_sum_to_the_growth() -> None:
    start = normal(0)
    found = blocks([normal(1), 0.5 * start, normal(2) - 0.3 * start], start)
    updates = sum(each["update"] * each["variance_post"] for each in found)
    gains = sum(each["gain_covariance"] for each in found)
    growth = found[-1]["variance_post"] - found[0]["variance_pre"]
    assert updates + gains == pytest.approx(growth, abs=1e-6)


def test_what_carries_the_growth() -> None:
    start = normal(0)
    # Twice the same vector: Var goes from 1 to 4, of which 2 is covariance.
    assert "67 %" in growth_sentence(blocks([start], start))
    # Features of their own can't covary: each update has some that nothing else writes to.
    own = [torch.zeros(400, 50) for _ in range(3)]
    for i, each in enumerate(own):
        each[:, 10 * i : 10 * i + 10] = normal(i)[:, :10]
    independent = growth_sentence(blocks(own[1:], own[0]))
    assert " 0 %" in independent
    assert "100 % the updates’ own" in independent
    assert "not grow" in growth_sentence(blocks([-0.5 * start], start))
    # What cancels leaves less than the updates bring.
    opposed = growth_sentence(blocks([2 * normal(1) - 0.5 * start], start))
    assert "−" in opposed


def test_nothing_is_said_of_what_is_not_known() -> None:
    still = normal(0)[:1].expand(20, 50)
    assert growth_sentence([]) == ""
    assert growth_sentence(blocks([still], still)) == ""
    assert growth_sentence([{}]) == ""


def test_growth_of_two_sets_is_that_of_both_together() -> None:
    x, u = normal(1), normal(2)
    # One set grows much, the other hardly and by cancelling terms.
    much = measure_growth(x, None, None, x + 3 * u)
    hardly = measure_growth(x, None, None, x - 1.01 * x - 1.0 * u)
    both = average_growth([much, hardly])
    assert both.gain_covariance is not None
    assert both.variance_post is not None
    assert both.variance_pre is not None
    assert both.covariance_of_growth == pytest.approx(
        both.gain_covariance / (both.variance_post - both.variance_pre)
    )
    shrinks = average_growth([measure_growth(x, None, None, 0.1 * x), hardly])
    assert shrinks.covariance_of_growth is None
    assert "covariance_of_growth" in shrinks.reasons
