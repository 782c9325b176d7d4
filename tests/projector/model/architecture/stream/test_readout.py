"""The final norm and head of a model, found from what its modules do, give the model's logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor, nn

from projector.errors import UserError
from projector.model.architecture.finding import find_architecture
from projector.model.architecture.stream.readout import Factor, Readout, find_readout
from projector.model.capture import collect
from tests.families import ENCODERS, FAMILIES, MIXTURES, build

_SMALL: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}


def _opt_of_350m() -> Any:
    """A stream wider than the embedding, and no final norm."""
    return hf.OPTForCausalLM(
        hf.OPTConfig(
            vocab_size=320,
            hidden_size=24,
            word_embed_proj_dim=16,
            do_layer_norm_before=False,
            ffn_dim=40,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=64,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=1,
        )
    )


# Name → how it is made, its scale and its cap.
SCALED: dict[str, tuple[Callable[[], Any], float, float | None]] = {
    "granite": (
        lambda: hf.GraniteForCausalLM(hf.GraniteConfig(**_SMALL, logits_scaling=6.0)),
        1 / 6,
        None,
    ),
    "cohere": (
        lambda: hf.CohereForCausalLM(hf.CohereConfig(**_SMALL, logit_scale=0.07)),
        0.07,
        None,
    ),
    "gemma2": (
        lambda: hf.Gemma2ForCausalLM(
            hf.Gemma2Config(**_SMALL, head_dim=8, final_logit_softcapping=2.5)
        ),
        1.0,
        2.5,
    ),
    "phi": (
        lambda: hf.PhiForCausalLM(
            hf.PhiConfig(**_SMALL | {"num_attention_heads": 6, "num_key_value_heads": 6})
        ),
        1.0,
        None,
    ),
    "opt without a final norm": (_opt_of_350m, 1.0, None),
}


def _random(model: Any) -> Any:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


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


@pytest.mark.parametrize("family", sorted(({*FAMILIES} - {*ENCODERS}) | {*MIXTURES}))
def test_gives_the_logits_of_every_decoder(family: str) -> None:
    model = build(family)
    found = _check(model)
    assert found.head is model.get_output_embeddings()
    assert found.norm is not None
    assert found.form is not None


@pytest.mark.parametrize("name", sorted(SCALED))
def test_finds_scale_and_cap(name: str) -> None:
    make, scale, softcap = SCALED[name]
    found = _check(_random(make()))
    assert found.scale == pytest.approx(scale, rel=1e-6)
    assert found.softcap == softcap
    assert (found.norm is None) == (name == "opt without a final norm")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_finds_them_in_half_precision(dtype: torch.dtype) -> None:
    make, _, softcap = SCALED["gemma2"]
    readout, stream, logits = _streams(_random(make()).to(dtype), torch.randint(2, 320, (1, 9)))
    assert (readout.scale, readout.softcap) == (1.0, softcap)
    with torch.no_grad():
        torch.testing.assert_close(readout.logits(stream), logits, rtol=3e-2, atol=3e-2)


class _Narrowed(nn.Module):
    """A head behind another factor, as in MiniCPM."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    @property
    def weight(self) -> Any:
        return None

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
        with pytest.raises(UserError, match="no head"):
            find_readout(model, find_architecture(model))


def test_leaves_the_model_as_it_was() -> None:
    model = build("gemma2").train()
    find_readout(model, find_architecture(model))
    assert all(module.training for module in model.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
