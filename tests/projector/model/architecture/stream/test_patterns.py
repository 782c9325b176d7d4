"""Attention patterns, streamed, are the model's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from projector.errors import UserError
from projector.model.architecture.finding import find_architecture
from projector.model.architecture.stream.patterns import (
    eager_attention,
    find_patterns,
    watch_patterns,
)
from projector.model.architecture.trial import trial_inputs
from tests.families import ENCODERS, FAMILIES, MIXTURES, N_LAYERS, STREAMS, build


def _own_patterns(model: Any, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
    with torch.no_grad(), eager_attention(model):
        attentions: tuple[torch.Tensor, ...] = model(**inputs, output_attentions=True).attentions
    return attentions


@pytest.mark.parametrize("family", sorted({*FAMILIES, *MIXTURES, *STREAMS} - {"falcon_in_turn"}))
def test_patterns_are_those_the_model_gives(family: str) -> None:
    model = build(family)
    architecture = find_architecture(model)
    inputs = trial_inputs(model, 2, 9)
    before = model.config._attn_implementation
    found: dict[int, torch.Tensor] = {}
    watch_patterns(model, architecture, inputs, lambda n, p: found.__setitem__(n, p.clone()))
    assert sorted(found) == list(range(N_LAYERS))
    assert model.config._attn_implementation == before
    for layer, own in enumerate(_own_patterns(model, inputs)):
        assert torch.equal(found[layer], own)
        assert torch.allclose(found[layer].sum(-1), torch.ones(()), atol=1e-5)
        if family not in ENCODERS:
            assert not found[layer].triu(1).any()


def test_patterns_stream_one_layer_at_a_time() -> None:
    model = build("llama")
    architecture = find_architecture(model)
    order: list[object] = []
    handles = [
        block.module.register_forward_hook(lambda *_, n=n: order.append(f"block {n}"))
        for n, block in enumerate(architecture.blocks)
    ]
    taps = find_patterns(model, architecture)
    order.clear()
    watch_patterns(
        model, architecture, trial_inputs(model, 1, 5), lambda n, _: order.append(n), taps=taps
    )
    for handle in handles:
        handle.remove()
    assert order == [0, "block 0", 1, "block 1"]


@pytest.mark.parametrize("family", ["llama", "gpt2", "falcon"])
def test_the_models_own_attention_is_set_back_after_an_error(family: str) -> None:
    model = build(family)
    architecture = find_architecture(model)
    taps = find_patterns(model, architecture)
    before = model.config._attn_implementation
    hooks = [len(module._forward_hooks) for module in model.modules()]

    def fail(layer: int, pattern: torch.Tensor) -> None:
        raise KeyError(layer)

    with pytest.raises(KeyError):
        watch_patterns(model, architecture, trial_inputs(model, 1, 5), fail, taps=taps)
    assert model.config._attn_implementation == before == "sdpa"
    assert [len(module._forward_hooks) for module in model.modules()] == hooks


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_model_that_computes_otherwise_with_plain_attention_has_no_pattern(
    dtype: torch.dtype,
) -> None:
    """Falcon with ALiBi adds its bias twice where attention is computed step by step."""
    model = build("falcon_in_turn").to(dtype)
    architecture = find_architecture(model)
    taps = find_patterns(model, architecture)
    assert all(isinstance(tap, str) for tap in taps.blocks)
    with pytest.raises(UserError):
        watch_patterns(model, architecture, trial_inputs(model, 1, 5), lambda n, p: None)
