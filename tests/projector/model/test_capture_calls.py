"""Blocks called again, one by one: what they were called with is all that they need."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import DynamicCache

from projector.model.architecture.finding import find_architecture
from projector.model.architecture.records import Architecture
from projector.model.capture import Call, record_calls
from tests.families import FAMILIES, N_LAYERS, N_VOCABULARY, build

LENGTHS = (9, 5, 3)


@cache
def found(family: str) -> tuple[Any, Architecture]:
    model = build(family)
    return model, find_architecture(model)


def padded(model: Any) -> tuple[dict[str, Tensor], Tensor]:
    place = torch.arange(max(LENGTHS))
    mask = place < torch.tensor(LENGTHS)[:, None]
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(2, N_VOCABULARY, mask.shape, generator=generator)
    ids[~mask] = model.config.pad_token_id or 0
    return {"input_ids": ids, "attention_mask": mask.long()}, mask


def streams_of(model: Any, architecture: Architecture, inputs: dict[str, Any]) -> list[Tensor]:
    """By plain hooks: the stream before the first block, and behind each."""
    seen: list[Tensor] = []

    def first(value: Any) -> Tensor:
        return value if isinstance(value, Tensor) else value[0]

    handles = [
        architecture.blocks[0].module.register_forward_pre_hook(
            lambda module, args, kwargs: seen.append(first([*args, *kwargs.values()]).clone()),
            with_kwargs=True,
        ),
        *(
            block.module.register_forward_hook(
                lambda module, args, output: seen.append(first(output).clone())
            )
            for block in architecture.blocks
        ),
    ]
    with torch.no_grad():
        model(**inputs)
    for handle in handles:
        handle.remove()
    return seen


def modules_of(architecture: Architecture) -> dict[int, nn.Module]:
    return {layer: block.module for layer, block in enumerate(architecture.blocks)}


@pytest.mark.parametrize("caches", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_called_again_give_the_model_s_own_streams(family: str, caches: bool) -> None:
    model, architecture = found(family)
    inputs, _ = padded(model)
    extra: dict[str, Any] = {} if caches else {"use_cache": False}
    if family in ("bert", "roberta"):
        extra = {}
    expected = streams_of(model, architecture, {**inputs, **extra})
    assert len(expected) == N_LAYERS + 1
    calls, stream = record_calls(model, modules_of(architecture), {**inputs, **extra})
    assert set(calls) == set(range(N_LAYERS))
    assert torch.equal(stream, expected[0])
    # Twice: calling again leaves no trace.
    for _ in range(2):
        at = stream
        for layer, block in enumerate(architecture.blocks):
            with torch.no_grad():
                at = calls[layer].again(block.module, at.clone())
            torch.testing.assert_close(at, expected[layer + 1], rtol=1e-5, atol=1e-5)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2", "gpt_neox", "falcon", "bert"])
def test_padding_is_masked_in_the_call(family: str) -> None:
    """A sequence that shares its batch with longer ones is read as it is alone."""
    model, architecture = found(family)
    inputs, mask = padded(model)
    calls, at = record_calls(model, modules_of(architecture), inputs)
    for layer, block in enumerate(architecture.blocks):
        with torch.no_grad():
            at = calls[layer].again(block.module, at.clone())
    alone = {name: tensor[2:, : LENGTHS[2]] for name, tensor in inputs.items()}
    assert not mask[2, LENGTHS[2] :].any()
    expected = streams_of(model, architecture, alone)[-1]
    torch.testing.assert_close(at[2:, : LENGTHS[2]], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_a_call_fits_another_stream(family: str) -> None:
    model, architecture = found(family)
    inputs, _ = padded(model)
    module = architecture.blocks[1].module
    calls, first = record_calls(model, {1: module}, inputs)
    with torch.no_grad():
        own, other = (calls[1].again(module, tensor) for tensor in (first, first + 1))
    expected = streams_of(model, architecture, inputs)
    torch.testing.assert_close(first, expected[1])
    torch.testing.assert_close(own, expected[2], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(own, other)


class _Adds(nn.Module):
    """Takes a tensor by name, beside another one and a cache; gives a tuple."""

    def forward(self, *, hidden: Tensor, shift: Tensor, cache: Any = None) -> tuple[str, Tensor]:
        if cache is not None:
            cache.update(hidden[None], hidden[None], 0)
        return "said", hidden + shift


class _Whole(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = _Adds()

    def forward(self, x: Tensor, cache: Any = None) -> Tensor:
        return self.inner(hidden=x * 2, shift=torch.ones(3), cache=cache)[1]


def test_arguments_by_name_are_filled_and_caches_left_out() -> None:
    model = _Whole()
    x = torch.arange(3.0)[None]
    cache_ = DynamicCache()
    calls, first = record_calls(model, {"a": model.inner}, {"x": x, "cache": cache_})
    assert torch.equal(first, 2 * x)
    n_before = cache_.get_seq_length()
    assert n_before > 0
    assert torch.equal(calls["a"].again(model.inner, torch.zeros(1, 3)), torch.ones(1, 3))
    assert cache_.get_seq_length() == n_before
    assert calls["a"].kwargs["cache"] is None


def test_the_first_tensor_is_a_copy() -> None:
    """Blocks that change the stream in place do not change what was recorded."""

    class InPlace(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.add_(1)

    model = nn.Sequential(InPlace(), InPlace())
    _, first = record_calls(model, {0: model[0]}, {"input": torch.zeros(2)})
    assert torch.equal(first, torch.zeros(2))


def test_what_has_no_tensor_is_refused_and_hooks_go() -> None:
    class Nothing(nn.Module):
        def forward(self, x: Any) -> str:
            return "nothing"

    model = nn.Sequential(Nothing(), Nothing())
    with pytest.raises(TypeError, match="Nothing receives"):
        record_calls(model, {1: model[1]}, {"input": torch.zeros(2)})
    assert not any(m._forward_pre_hooks for m in model.modules())
    with pytest.raises(TypeError, match="Nothing returns"):
        Call((torch.zeros(1),), {}).again(model[0], torch.zeros(1))
