"""What a model says without some neurons, against one that never had them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from dashboard import ablation
from dashboard.ablation import Outcome, ablate, ablate_heads
from dashboard.guest import Guest
from dashboard.prompts import Prompt, continue_prompt
from projector.errors import UserError
from projector.model.architecture.finding import find_architecture
from projector.model.intervention import Replacement, intervene
from pruning.scoring.perplexity import score
from pruning.scoring.windows import EvaluationText, prepare
from tests.conftest import make_text
from tests.dashboard.conftest import DECODER, ENCODER, GPT2
from tests.families import N_NEURONS

Guests = Callable[[str], Guest]
LAYER, GONE = 1, (3, 17, 18, 30)
PROMPT = Prompt("kalo mi ten", 6)
MEANS = np.random.default_rng(0).normal(size=N_NEURONS).astype(np.float32)


@pytest.fixture(scope="module")
def windows(tokenizer: Any) -> EvaluationText:
    return prepare([make_text(300, seed=8)], tokenizer, 64, max_windows=3)


def run(guest: Guest, text: EvaluationText | None, **options: Any) -> list[Outcome]:
    arguments: dict[str, Any] = {
        "prompt": PROMPT,
        "layer": LAYER,
        "site": "mlp_post",
        "neurons": GONE,
        "kind": "zero",
        "means": None,
        "among": range(N_NEURONS),
    } | options
    return ablate(guest, text, **arguments)


def by_hand(guest: Guest, family: str, values: np.ndarray) -> Guest:
    """A model whose output weights lack some neurons, what those gave standing in the bias."""
    model: Any = copy.deepcopy(guest.loaded.model)
    with torch.no_grad():
        if family == GPT2:
            projection = model.transformer.h[LAYER].mlp.c_proj
            projection.bias += torch.from_numpy(values) @ projection.weight[list(GONE)]
            projection.weight[list(GONE)] = 0
        else:
            assert not values.any(), "this model has no bias"
            model.model.layers[LAYER].mlp.down_proj.weight[:, list(GONE)] = 0
    return Guest(replace(guest.loaded, model=model), find_architecture(model))


@pytest.mark.parametrize(("family", "kind"), [(DECODER, "zero"), (GPT2, "zero"), (GPT2, "mean")])
def test_without_neurons_a_model_is_as_if_it_never_had_them(
    family: str, kind: str, guest: Guests, windows: EvaluationText
) -> None:
    found = guest(family)
    whole, without, *_ = run(found, windows, kind=kind, means=MEANS if kind == "mean" else None)
    values = MEANS[list(GONE)] if kind == "mean" else np.zeros(len(GONE), dtype=np.float32)
    expected = by_hand(found, family, values)
    assert whole.perplexity == score(found.loaded.model, windows).perplexity
    assert whole.continuation == continue_prompt(found, PROMPT)
    assert without.perplexity == pytest.approx(
        score(expected.loaded.model, windows).perplexity, rel=1e-5
    )
    assert without.continuation == continue_prompt(expected, PROMPT)
    assert without.perplexity != pytest.approx(whole.perplexity, rel=1e-4)


def n_hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_no_hook_stays(guest: Guests, windows: EvaluationText) -> None:
    found = guest(DECODER)
    before = score(found.loaded.model, windows).perplexity
    run(found, windows)
    assert n_hooks(found.loaded.model) == 0

    def stop(n: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(found, windows, advance=stop)
    assert n_hooks(found.loaded.model) == 0
    assert score(found.loaded.model, windows).perplexity == before


@pytest.fixture
def gone(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Whom each model that is scored lacks."""
    seen: list[list[int]] = []

    def watched(replacements: Sequence[Replacement]) -> AbstractContextManager[None]:
        seen.append([int(j) for each in replacements for j in each.neurons])
        return intervene(replacements)

    monkeypatch.setattr(ablation, "intervene", watched)
    return seen


def test_random_neurons_are_as_many_and_others(guest: Guests, gone: list[list[int]]) -> None:
    among = [j for j in range(N_NEURONS) if j not in (0, 5)]
    outcomes = run(guest(DECODER), None, among=among, n_random=4)
    assert gone[:2] == [[], list(GONE)]
    assert len(outcomes) == len(gone) == 6
    for draw in gone[2:]:
        assert len(set(draw)) == len(GONE)
        assert set(draw) <= set(among) - set(GONE)
    assert len({tuple(draw) for draw in gone[2:]}) == 4
    assert [each.name for each in outcomes][:2] == ["the whole model", "without the group"]
    assert all("4 random neurons" in each.name for each in outcomes[2:])


def test_draws_are_the_same_again_and_others_for_another_seed(
    guest: Guests, gone: list[list[int]]
) -> None:
    for seed in (0, 0, 1):
        run(guest(DECODER), None, seed=seed)
    first, again, other = gone[:5], gone[5:10], gone[10:]
    assert first == again
    assert first[:2] == other[:2]
    assert first[2:] != other[2:]


def test_of_too_many_neurons_random_ones_may_be_the_same(
    guest: Guests, gone: list[list[int]]
) -> None:
    most = list(range(30))
    outcomes = run(guest(DECODER), None, neurons=most)
    for draw in gone[2:]:
        assert len(set(draw)) == 30
    # And no more can go than there are.
    gone.clear()
    outcomes = run(guest(DECODER), None, neurons=most, among=range(12))
    assert [len(draw) for draw in gone[2:]] == [12] * 3
    assert all("12 random neurons" in each.name for each in outcomes[2:])


def test_each_model_is_told_of(guest: Guests, windows: EvaluationText) -> None:
    told: list[int] = []
    outcomes = run(guest(DECODER), windows, prompt=None, advance=told.append)
    assert told == [1] * len(outcomes) == [1] * 5
    assert all(each.continuation is None for each in outcomes)
    assert all(each.perplexity is not None for each in outcomes)


@pytest.mark.parametrize("site", ["attn_out", "attn_z", "resid_post"])
def test_neurons_of_every_site_can_go(site: str, guest: Guests, windows: EvaluationText) -> None:
    width = guest(DECODER).architecture.blocks[LAYER].widths[site]
    outcomes = run(guest(DECODER), windows, site=site, neurons=(0, 5), among=range(width))
    assert len({each.perplexity for each in outcomes}) == 5


def test_an_encoder_has_neither_score_nor_continuation(guest: Guests) -> None:
    outcomes = run(guest(ENCODER), None)
    assert [(each.perplexity, each.continuation) for each in outcomes] == [(None, None)] * 5


def test_a_perplexity_that_is_no_number_is_none(guest: Guests, windows: EvaluationText) -> None:
    found = guest(GPT2)
    means = np.full(N_NEURONS, np.nan, dtype=np.float32)
    whole, without, *_ = run(found, windows, prompt=None, kind="mean", means=means)
    assert whole.perplexity is not None
    assert without.perplexity is None


@pytest.mark.parametrize("family", [DECODER, GPT2])
def test_without_heads_a_model_is_as_if_they_wrote_nothing(
    family: str, guest: Guests, windows: EvaluationText
) -> None:
    found = guest(family)
    whole, without, *random = ablate_heads(found, windows, PROMPT, [(LAYER, 1)])
    model: Any = copy.deepcopy(found.loaded.model)
    n_heads = found.subject.layout.blocks[LAYER].n_heads
    assert n_heads
    with torch.no_grad():
        if family == GPT2:
            weight = model.transformer.h[LAYER].attn.c_proj.weight
            weight.view(n_heads, -1, weight.shape[1])[1] = 0
        else:
            weight = model.model.layers[LAYER].self_attn.o_proj.weight
            weight.view(weight.shape[0], n_heads, -1)[:, 1] = 0
    expected = Guest(replace(found.loaded, model=model), find_architecture(model))
    assert whole.perplexity == score(found.loaded.model, windows).perplexity
    assert without.perplexity == pytest.approx(score(model, windows).perplexity, rel=1e-5)
    assert without.continuation == continue_prompt(expected, PROMPT)
    assert without.perplexity != pytest.approx(whole.perplexity, rel=1e-6)
    # The controls are other heads of the same layer, one each.
    assert len(random) == 3
    assert all(f"L{LAYER} H" in each.name and "H1" not in each.name for each in random)
    # No head is drawn twice while there are others.
    assert len({each.name.split(": ")[1] for each in random}) == min(3, n_heads - 1)


def test_heads_that_are_not_there_are_refused(guest: Guests, windows: EvaluationText) -> None:
    for head in ((LAYER, 99), (99, 0)):
        with pytest.raises(UserError, match="99"):
            ablate_heads(guest(DECODER), windows, None, [head])
