"""What finding partners across layers takes: tokens, tiles, memory, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from projector.corpus.batches import Corpus
from projector.errors import SettingError, UserError
from projector.statistics.cross_layer.plan import (
    CrossLayerPlan,
    plan_cross_layer,
    seconds_of_products,
    some_sequences,
)

WIDTHS = {0: 1536, 3: 1536, 4: 1000}


@cache
def make_corpus(n_sequences: int = 100, length: int = 65) -> Corpus:
    ids = np.arange(n_sequences * length, dtype=np.int32)
    starts = np.arange(0, len(ids) + 1, length)
    n_tokens = n_sequences * (length - 1)
    return Corpus("made up", "0" * 64, ids, starts, 1, n_tokens, n_tokens, 0, ())


def make_plan(**options: Any) -> CrossLayerPlan:
    given: dict[str, Any] = {
        "most_tokens": 20_000,
        "n_positions": 1024,
        "itemsize": 4,
        "widest": 1536,
        "budget": 10**9,
        "free": 10**10,
    }
    return plan_cross_layer(make_corpus(), options.pop("widths", WIDTHS), **given | options)


def test_tiles_are_as_wide_as_the_budget_lets_them_be() -> None:
    whole = make_plan()
    assert whole.n_columns == 1536 + 128
    assert whole.pairs == [(0, 3), (0, 4), (3, 4)]
    budgets = [int(whole.n_bytes * share) for share in (1, 0.9, 0.8)]
    plans = [make_plan(budget=budget) for budget in budgets]
    assert plans[0] == replace(whole, room=budgets[0])
    assert plans[2].n_columns < plans[1].n_columns < whole.n_columns
    for plan, budget in zip(plans, budgets, strict=True):
        assert plan.n_bytes <= budget
        assert plan.operations == whole.operations


def test_operations_are_those_of_the_products() -> None:
    plan = make_plan(widths={0: 10, 1: 20})
    n_tokens = plan.corpus.n_tokens
    products = 2 * n_tokens * 10 * (20 + 20) + 2 * 10 * 20 * (10 + 20)
    rotations = sum(2 * n_tokens * n * n + 8 * n**3 // 3 for n in (10, 20))
    assert plan.operations == products + rotations
    assert seconds_of_products(plan, torch.device("cpu")) > 0


def test_a_budget_too_small_for_a_tile_is_refused_before_anything_is_done() -> None:
    with pytest.raises(UserError) as refused:
        make_plan(budget=120 * 10**6)
    assert (refused.value.setting, refused.value.value) == ("memory_budget", 120 * 10**6)
    with pytest.raises(UserError) as refused:
        make_plan(budget=None, free=10**8)
    assert refused.value.setting == "memory_budget"


@pytest.mark.parametrize("widths", [{}, {3: 40}])
def test_fewer_than_two_layers_are_refused(widths: dict[int, int]) -> None:
    with pytest.raises(SettingError) as refused:
        make_plan(widths=widths)
    assert (refused.value.setting, refused.value.value) == ("layers", sorted(widths))


def test_of_a_large_corpus_whole_sequences_are_drawn_evenly() -> None:
    corpus = make_corpus()
    assert some_sequences(corpus, 6400) is corpus
    some = some_sequences(corpus, 1300)
    assert (some.n_sequences, some.n_tokens) == (20, 1280)
    assert sum(batch.n_tokens for batch in some.batches(7)) == 1280
    firsts = some.ids[some.starts[:-1]]
    assert set(firsts % 65) == {0}
    # One of each stretch of five.
    assert (firsts // 65 // 5).tolist() == list(range(20))
    assert some_sequences(corpus, 3).n_sequences == 1
