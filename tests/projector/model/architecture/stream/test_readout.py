"""The final norm and head of a model, found from what its modules do, give the model's logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor, nn

from projector.errors import UserError
from projector.model.architecture.finding import find_architecture
from projector.model.architecture.stream.readout import Factor, Readout, find_readout
from projector.model.capture import collect
from tests.families import ENCODERS, FAMILIES, MIXTURES, STREAMS, build
from tests.refused import refused_naming

DECODERS = sorted(({*FAMILIES} - {*ENCODERS}) | {*MIXTURES} | {*STREAMS})
# What raw logits are multiplied by, and their cap, where a model has either.
SCALES = {"granite": 1 / 3, "cohere": 0.2}
CAPS = {"gemma2": 30.0, "gemma2_capped": 2.0}
WITHOUT_NORM = ("opt_350m",)


def _streams(model: Any, ids: Tensor) -> tuple[Readout, Tensor, Tensor]:
    """The readout, the last block's output, and the model's logits."""
    architecture = find_architecture(model)
    readout = find_readout(model, architecture)
    tap = architecture.blocks[-1].taps["resid_post"]
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    stream = collect(model, {0: tap}, inputs)[0]
    with torch.no_grad():
        return readout, stream, model(**inputs).logits.float()


def _check(model: Any) -> Readout:
    ids = torch.randint(2, 320, (1, 9))
    readout, stream, logits = _streams(model, ids)
    with torch.no_grad():
        own = readout.logits(stream)
        torch.testing.assert_close(own, logits, rtol=1e-5, atol=1e-5)
        # The head as a matrix, and in place, tell the same.
        normed = stream if readout.norm is None else readout.norm(stream)
        raw = normed @ readout.unembedding().T + readout.head_bias()
        torch.testing.assert_close(readout.finish(raw), logits, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(readout.finish_(raw), logits, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(readout.unembedding([5, 3]), readout.unembedding()[[5, 3]])
        torch.testing.assert_close(readout.head_bias([5, 3]), readout.head_bias()[[5, 3]])
    return readout


@pytest.mark.parametrize("family", DECODERS)
def test_gives_the_logits_of_every_decoder(family: str) -> None:
    model = build(family)
    found = _check(model)
    assert found.head is model.get_output_embeddings()
    assert (found.norm is None) == (found.form is None) == (family in WITHOUT_NORM)
    assert found.scale == pytest.approx(SCALES.get(family, 1.0), rel=1e-6)
    assert found.softcap == CAPS.get(family)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_finds_them_in_half_precision(dtype: torch.dtype) -> None:
    model = build("gemma2_capped").to(dtype)
    readout, stream, logits = _streams(model, torch.randint(2, 320, (1, 9)))
    assert (readout.scale, readout.softcap) == (1.0, 2.0)
    with torch.no_grad():
        torch.testing.assert_close(readout.logits(stream), logits, rtol=3e-2, atol=3e-2)


class _Narrowed(nn.Module):
    """A head behind another factor, as in MiniCPM."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        given: Tensor = self.head(x / 4)
        return given


def test_finds_a_factor_before_the_head() -> None:
    model = build("llama")
    model.lm_head = _Narrowed(model.lm_head)
    found = _check(model)
    (factor,) = found.between
    assert isinstance(factor, Factor)
    assert factor.factor == 0.25
    assert found.head is model.lm_head.head


class _Shifted(nn.Module):
    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        given: Tensor = self.head(x)
        return given + torch.arange(given.shape[-1])


def test_refuses_what_it_does_not_know() -> None:
    model = build("llama")
    model.lm_head = _Shifted(model.lm_head)
    with pytest.raises(UserError, match="head"):
        find_readout(model, find_architecture(model))


@pytest.mark.parametrize("family", ENCODERS)
def test_refuses_encoders(family: str) -> None:
    model = build(family)
    with pytest.raises(UserError, match="encoder"):
        find_readout(model, find_architecture(model))


def test_refuses_models_without_a_head_over_the_vocabulary() -> None:
    config = hf.GPT2Config(vocab_size=320, n_embd=24, n_layer=2, n_head=4, n_positions=64)
    for kind in (hf.GPT2Model, hf.GPT2ForTokenClassification):
        model = kind(config).eval()
        with refused_naming(type(model).__name__, "head"):
            find_readout(model, find_architecture(model))


def test_leaves_the_model_as_it_was() -> None:
    model = build("gemma2").train()
    find_readout(model, find_architecture(model))
    assert all(module.training for module in model.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
