"""Random heads keep a head's spectra and place, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from projector.model.architecture.stream.attention import HeadWeights
from projector.model.architecture.stream.patterns import plain_run
from projector.model.capture import watch_calls
from projector.residual.circuits.copying import copying_scores
from projector.residual.circuits.factors import Factors
from projector.residual.heads.kinds import PATTERN_KINDS
from projector.residual.heads.nulls import (
    Axes,
    RandomHeads,
    expected_count,
    percentiles,
    random_copying,
)
from projector.residual.heads.scores import score_heads
from tests.families import subject_of

FAMILIES = ("llama", "gpt2", "bloom", "gpt_neox", "falcon", "phi3", "olmo2", "gemma2_capped")


def _first_call(subject: Any, layer: int = 0) -> tuple[HeadWeights, Any, Any, torch.Tensor]:
    """A layer's heads and attention, and how the model calls it on twelve tokens.

    Plain attention stays on in this model, for the module to be called again.
    """
    subject.model.config._attn_implementation = "eager"
    tap = subject.patterns.block(layer)
    weights = subject.attentions[layer]
    calls: list[Any] = []
    with plain_run(subject.model), watch_calls({0: tap.module}, lambda *call: calls.append(call)):
        subject.model(**subject.inputs(list(range(3, 15))), use_cache=False)
    _, call, first, _ = calls[0]
    return weights, tap, call, first


@pytest.mark.parametrize("family", FAMILIES)
def test_few_columns_give_the_patterns_of_whole_weights(family: str) -> None:
    subject = subject_of(family)
    weights, tap, call, first = _first_call(subject, layer=1)
    drawn = RandomHeads(weights, tap, Axes(2, seed=0))
    assert drawn._agree(call, first, drawn._wide(), drawn._narrow(first))
    quick = list(drawn.patterns(call, first))
    for number, pattern in enumerate(quick):
        wide = drawn._wide()
        drawn._draw(wide, number)
        assert torch.allclose(pattern, drawn._run(call, first, wide), atol=1e-5)
    assert not torch.allclose(quick[0], quick[1], atol=1e-2)


def test_a_module_that_takes_no_fewer_columns_is_called_with_whole_weights() -> None:
    """One that reads the width of what it is given, as by a norm of its own."""
    subject = subject_of("llama")
    weights, tap, call, first = _first_call(subject)
    drawn = RandomHeads(weights, tap, Axes(2, seed=0))
    expected = list(drawn.patterns(call, first))

    def check(module: Any, args: Any, kwargs: Any) -> None:
        if kwargs["hidden_states"].shape[-1] != first.shape[-1]:
            raise ValueError("another width")

    tap.module.register_forward_pre_hook(check, with_kwargs=True)
    for pattern, same in zip(drawn.patterns(call, first), expected, strict=True):
        assert torch.allclose(pattern, same, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "falcon"])
def test_random_heads_have_the_same_singular_values(family: str) -> None:
    weights, tap, _, _ = _first_call(subject_of(family))
    drawn = RandomHeads(weights, tap, Axes(2, seed=0))
    wide = drawn._wide()
    drawn._draw(wide, 1)
    names = {module: name for name, module in tap.module.named_modules()}
    for rows in (weights.q_rows, weights.k_rows):
        name = names[rows.matrix.module]
        weight = wide[f"{name}.weight"]
        new = (weight if rows.matrix.input_axis == 1 else weight.T)[rows.index]
        old = rows.weight
        if rows.bias is not None:
            new = torch.cat([new, wide[f"{name}.bias"][rows.index][..., None]], 2)
            old = torch.cat([old, rows.bias[..., None]], 2)
        assert torch.allclose(torch.linalg.svdvals(new), torch.linalg.svdvals(old), atol=1e-4)
        assert not torch.allclose(new, old, atol=1e-2)
    # What is neither a query nor a key stays what it is.
    values = weights.v_rows
    if values.matrix.module is weights.q_rows.matrix.module:
        weight = wide[f"{names[values.matrix.module]}.weight"]
        weight = weight if values.matrix.input_axis == 1 else weight.T
        assert weight[values.index].equal(values.weight)


def test_heads_of_random_models_lie_anywhere_among_random_heads() -> None:
    """Where there is nothing to find, percentiles are spread evenly."""
    found = [
        row.percentile(kind.name)
        for family in ("llama", "gpt2", "gpt_neox")
        for row in score_heads(subject_of(family), n_sequences=2, length=20, n_random=40).rows
        for kind in PATTERN_KINDS
    ]
    known = torch.tensor([each for each in found if each is not None])
    assert len(known) == 3 * 8 * 4
    assert 38 < known.mean() < 62
    assert 20 < known.std() < 40


def test_random_copying_is_that_of_random_heads_multiplied_out() -> None:
    generator = torch.Generator().manual_seed(0)
    ov = Factors(
        torch.randn(3, 12, 4, generator=generator), torch.randn(3, 4, 12, generator=generator)
    )
    gram = torch.randn(12, 12, generator=generator)
    axes = Axes(5, seed=2)
    found = random_copying(ov, gram, axes, lambda n: None)
    for number in range(5):
        left, right = (axes.draw(12, 4, which)[number] for which in ("writing", "reading"))
        drawn = Factors(left * ov.singular_values()[:, None, :], right.T.expand(3, -1, -1))
        assert torch.allclose(drawn.singular_values(), ov.singular_values(), atol=1e-4)
        assert torch.allclose(found[number], copying_scores(drawn, gram), atol=1e-4)


def test_percentiles_and_the_count_by_chance_by_hand() -> None:
    random = torch.tensor([[0.0], [0.1], [0.2], [0.9]])
    assert percentiles(torch.tensor([0.15]), random).tolist() == [50.0]
    assert percentiles(torch.tensor([0.1]), random).tolist() == [37.5]
    # Of four draws, only 0.9 is high, and all others are lower; of 0.2, two of three others are.
    assert expected_count(random, least=0.5, least_percentile=99) == 0.25
    assert expected_count(random, least=0.2, least_percentile=66) == 0.5
    assert expected_count(random, least=0.2, least_percentile=67) == 0.25
    # A draw is not beyond itself.
    assert expected_count(random[3:], least=0.5, least_percentile=99) == 0
