"""Intervals of effects: as wide as groups of prompts make them, drawn once for both sets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from projector.residual.directions.comparing import Plan, Tail, effects_of
from projector.residual.directions.comparing import Tested as Sample
from projector.residual.directions.records import Effect
from projector.residual.directions.running import Text

PLAN = Plan(0, "added", 1.0, 2.0, (), 1)


def _effects(offs: tuple[Any, Any], groups: tuple[Any, Any]) -> list[Effect]:
    """Of texts of one predicted token each, whose −log probability a change raises by ``offs``."""
    texts = [Sample(Text((1, 2)), side, 0, group) for side in (0, 1) for group in groups[side]]
    off = torch.tensor([*offs[0], *offs[1]], dtype=torch.float64)
    plain = torch.linspace(1, 3, len(off), dtype=torch.float64)
    # The direction, a random one and two of permuted labels.
    runs = [plain + off, plain + 0.25, plain - 0.5, plain + 8]
    return effects_of(PLAN, texts, plain, runs, [Tail()], 7)


def _width(effect: Effect) -> float:
    assert effect.effect_low is not None
    assert effect.effect_high is not None
    assert effect.effect is not None
    assert effect.effect_low <= effect.effect <= effect.effect_high
    return effect.effect_high - effect.effect_low


def test_an_interval_is_as_wide_as_the_standard_error_says() -> None:
    random, n = np.random.default_rng(1), 60
    offs = random.normal(1, 2, n), random.normal(0, 1, n)
    found = _effects(offs, (range(n), range(n, 2 * n)))
    assert [each.set for each in found] == ["positive", "negative", "difference"]
    errors = [float(each.std()) / n**0.5 for each in offs]
    errors.append((errors[0] ** 2 + errors[1] ** 2) ** 0.5)
    for each, error in zip(found, errors, strict=True):
        assert _width(each) == pytest.approx(2 * 1.96 * error, rel=0.12)
    assert [each.n_groups for each in found] == [n, n, 2 * n]
    assert found[2].effect == pytest.approx(offs[1].mean() - offs[0].mean())
    assert found[0].random == pytest.approx((0.25,))
    assert found[0].permuted == pytest.approx((-0.5, 8))
    assert (found[0].exceeds_random, found[0].exceeds_permuted) == (True, False)
    assert found[0].as_dict()["permuted_mean"] == pytest.approx(3.75)


def test_groups_are_drawn_once_for_both_sets() -> None:
    """What a couple does to both of its prompts cancels in the difference, its interval too."""
    offs = np.random.default_rng(2).normal(0, 3, 40)
    groups = (range(40), range(40))
    found = _effects((offs, offs + 0.5), groups)
    assert _width(found[0]) > 1
    assert _width(found[1]) == pytest.approx(_width(found[0]))
    assert _width(found[2]) == pytest.approx(0, abs=1e-9)
    assert found[2].effect == pytest.approx(0.5)
    # And adds up where the couple's prompts move against each other.
    found = _effects((offs, -offs), groups)
    assert _width(found[2]) == pytest.approx(2 * _width(found[0]), rel=1e-6)


def test_prompts_of_a_group_are_drawn_together() -> None:
    each = np.random.default_rng(3).normal(0, 1, 16)
    offs, groups = np.repeat(each, 8), np.repeat(np.arange(16), 8)
    found = _effects((offs, offs[::-1]), (groups, groups + 16))
    error = float(each.std()) / 4
    assert _width(found[0]) == pytest.approx(2 * 1.96 * error, rel=0.15)
    assert (found[0].n_prompts, found[0].n_groups) == (128, 16)


def test_one_group_has_no_interval() -> None:
    found = _effects(([1, 2, 3], [1, 2, 3]), ([4, 4, 4], [5, 5, 6]))
    assert [each.effect_low is None for each in found] == [True, False, True]
    assert all(each.effect is not None for each in found)
