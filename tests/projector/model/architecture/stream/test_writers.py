"""What each family writes to its stream, by what its modules are called in its source."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import nn

from projector.model.architecture.finding import find_architecture
from projector.model.architecture.stream.attention import find_attentions
from projector.model.architecture.stream.records import StreamLayout
from projector.model.architecture.stream.writers import find_stream
from tests.families import CLOSE_PER_BLOCK, FAMILIES, MIXTURES, PARALLEL, STREAMS, build

ALL = (*FAMILIES, *MIXTURES, *STREAMS)
IN_PARALLEL = (*PARALLEL, "cohere", "gptj", "stablelm_parallel", "phi")
_BEHIND = ("post_attention_layernorm", "post_feedforward_layernorm")
NORMS = {
    "gemma2": _BEHIND,
    "gemma2_capped": _BEHIND,
    "gemma3": _BEHIND,
    "olmo2": _BEHIND,
    "glm4": ("post_self_attn_layernorm", "post_mlp_layernorm"),
}
SOURCES = {
    "gpt2": ["embedding", "position"],
    "opt": ["embedding", "position"],
    "opt_350m": ["embedding", "position"],
    "bert": ["embedding", "token type", "position"],
    "roberta": ["embedding", "token type", "position"],
}
EMBEDDING_NORM = ("bloom", "bert", "roberta")


@cache
def found(family: str) -> tuple[Any, StreamLayout]:
    model = build(family)
    return model, find_stream(model, find_architecture(model))


@pytest.mark.parametrize("family", ALL)
def test_every_block_writes_as_its_source_says(family: str) -> None:
    model, layout = found(family)
    names = {module: name for name, module in model.named_modules()}
    assert len(layout.blocks) == 2
    for block in layout.blocks:
        assert block.reason is None
        assert block.attention is not None
        assert block.mlp is not None
        assert block.n_heads == 4
        assert block.has_mid == (family not in IN_PARALLEL)
        norms = [
            [names[norm].rsplit(".", 1)[1] for norm, _ in each.norms]
            for each in (block.attention, block.mlp)
        ]
        assert norms == ([[name] for name in NORMS[family]] if family in NORMS else [[], []])
        factor = 0.3 if family == "granite" else 1.0
        assert (block.attention.factor, block.mlp.factor) == (factor, factor)
        assert (block.mlp.matrix is None) == (family in MIXTURES)
    assert layout.closes_per_block == (family in CLOSE_PER_BLOCK)
    assert (layout.reason is not None) == layout.closes_per_block


@pytest.mark.parametrize("family", ALL)
def test_the_embedding_is_taken_apart(family: str) -> None:
    _, layout = found(family)
    embedding = layout.embedding
    assert embedding.reason is None
    assert [each.name for each in embedding.sources] == SOURCES.get(family, ["embedding"])
    assert len(embedding.norms) == (family in EMBEDDING_NORM)
    if family == "granite":
        assert embedding.sources[0].factor == 5.0


def test_gemma_multiplies_its_embedding() -> None:
    """The third Gemma does so within the table's module, which gives what is multiplied."""
    model, layout = found("gemma2")
    table = model.get_input_embeddings().weight
    (source,) = layout.embedding.sources
    given = source.tap.module(torch.tensor([[3]]))[0, 0]
    assert torch.allclose(given * source.factor, table[3] * 24**0.5, rtol=1e-5)


def test_a_factor_of_no_setting_is_found() -> None:
    model = build("llama")
    layer = model.model.layers[1]
    layer.mlp.register_forward_hook(lambda module, args, output: output * 0.4321)
    layout = find_stream(model, find_architecture(model))
    assert layout.blocks[1].mlp is not None
    assert layout.blocks[1].mlp.factor == pytest.approx(0.4321, rel=1e-5)
    assert layout.blocks[0].mlp is not None
    assert layout.blocks[0].mlp.factor == 1


@pytest.mark.parametrize("part", ["self_attn", "mlp"])
def test_a_sublayer_that_is_added_in_another_way_is_named(part: str) -> None:
    """Its output is multiplied by what depends on it, behind the projection that gives it."""
    model = build("llama")
    module = model.model.layers[1].get_submodule(part)

    def bend(module: nn.Module, args: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (output[0] * output[0].tanh(), *output[1:])
        return output * output.tanh()

    module.register_forward_hook(bend)
    layout = find_stream(model, find_architecture(model))
    assert layout.blocks[0].reason is None
    reason = layout.blocks[1].reason
    assert reason is not None
    assert {"self_attn": "attention", "mlp": "MLP"}[part] in reason


def test_what_else_is_added_is_no_sum_of_the_two() -> None:
    model = build("gpt_neox")
    model.gpt_neox.layers[1].register_forward_hook(
        lambda module, args, output: (output[0] if isinstance(output, tuple) else output) + 0.3
    )
    layout = find_stream(model, find_architecture(model))
    assert [block.reason is None for block in layout.blocks] == [True, False]


def test_bloom_that_adds_to_the_normed_stream_has_no_running_sum() -> None:
    import transformers as hf

    torch.manual_seed(0)
    model: Any = hf.BloomForCausalLM(
        hf.BloomConfig(
            vocab_size=64,
            hidden_size=24,
            n_layer=2,
            n_head=4,
            apply_residual_connection_post_layernorm=True,
        )
    ).eval()
    layout = find_stream(model, find_architecture(model))
    assert all(block.reason is None for block in layout.blocks)
    assert layout.closes_per_block


def test_the_model_is_left_as_it_was() -> None:
    model = build("gemma2").train()
    model.model.layers[0].eval()
    model.requires_grad_(False)
    architecture = find_architecture(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    training = [module.training for module in model.modules()]
    find_stream(model, architecture)
    assert [module.training for module in model.modules()] == training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ["gemma2", "granite", "gpt2", "gpt_neox", "bloom"])
def test_the_layout_in_half_precision_is_that_in_float32(family: str, dtype: torch.dtype) -> None:
    model = build(family).to(dtype)
    layout = find_stream(model, find_architecture(model))
    _, expected = found(family)
    for given, wanted in zip(layout.blocks, expected.blocks, strict=True):
        assert given.has_mid == wanted.has_mid
        for name, addition in wanted.additions().items():
            assert given.additions()[name].factor == addition.factor
            assert len(given.additions()[name].norms) == len(addition.norms)
    assert len(layout.embedding.sources) == len(expected.embedding.sources)
    assert layout.embedding.sources[0].factor == pytest.approx(
        expected.embedding.sources[0].factor, rel=5e-3
    )


@pytest.mark.parametrize("family", ["qwen3", "gpt2", "bloom", "gptj", "gemma2_capped"])
def test_the_heads_counted_are_those_whose_patterns_the_model_gives(family: str) -> None:
    model, layout = found(family)
    weights = find_attentions(model, find_architecture(model), [1])[1]
    assert not isinstance(weights, str)
    assert layout.blocks[1].n_heads == weights.n_heads
