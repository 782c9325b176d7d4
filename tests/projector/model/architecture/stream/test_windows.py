"""Sliding windows are named for the blocks that have them."""

from __future__ import annotations

from typing import Any

import pytest
import transformers as hf

from projector.model.architecture.finding import find_architecture
from projector.model.architecture.stream.attention import HeadWeights, find_attentions
from projector.model.architecture.stream.probing.windows import UNTRIED, WINDOW
from tests.families import _LLAMA_LIKE, build

CONFIGS: dict[str, tuple[Any, list[bool]]] = {
    "mistral": (lambda **each: hf.MistralForCausalLM(hf.MistralConfig(**each)), [True, True]),
    # Every other layer.
    "gemma2": (
        lambda **each: hf.Gemma2ForCausalLM(hf.Gemma2Config(**each, head_dim=8)),
        [True, False],
    ),
}


def named(model: Any) -> list[tuple[str, ...]]:
    found = find_attentions(model, find_architecture(model))
    names = []
    for weights in found.values():
        assert isinstance(weights, HeadWeights)
        names.append(tuple(each for each in weights.left_out if each in (WINDOW, UNTRIED)))
    return names


@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_a_window_is_named_where_there_is_one(family: str) -> None:
    make, has_window = CONFIGS[family]
    model = make(**_LLAMA_LIKE, sliding_window=16).eval()
    before = [dict(vars(module)) for module in model.modules()]
    assert named(model) == [(WINDOW,) if each else () for each in has_window]
    assert [vars(module).get("forward") for module in model.modules()] == [
        each.get("forward") for each in before
    ]
    # One as long as the model's context hides nothing.
    assert named(make(**_LLAMA_LIKE, sliding_window=64).eval()) == [(), ()]


def test_a_window_too_long_to_try_is_said_to_be() -> None:
    long: dict[str, Any] = _LLAMA_LIKE | {"max_position_embeddings": 20_000}
    model = hf.MistralForCausalLM(hf.MistralConfig(**long, sliding_window=10_000)).eval()
    assert named(model) == [(UNTRIED,), (UNTRIED,)]


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2"])
def test_no_window_is_named_where_there_is_none(family: str) -> None:
    assert named(build(family)) == [(), ()]
