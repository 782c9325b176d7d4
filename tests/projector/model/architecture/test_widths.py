"""MLPs of several widths in one model, and what each family can express of them."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaMLP

from projector.model.architecture.finding import find_architecture
from projector.model.architecture.records import Architecture
from projector.model.architecture.widths import (
    can_have_bias,
    config_with_widths,
    has_output_bias,
    trunk_prefix,
)
from projector.model.capture import Tap, collect
from tests.families import (
    ENCODERS,
    FAMILIES,
    MIXTURES,
    N_HIDDEN,
    N_LAYERS,
    N_NEURONS,
    N_NEURONS_OF,
    N_VOCABULARY,
    build,
)
from tests.projector.model.architecture.test_architecture import _Odd
from tests.refused import refused, refused_naming

# What each family's config calls the width, read off its source.
SETTING = dict.fromkeys(FAMILIES, "intermediate_size") | {
    "gpt2": "n_inner",
    "opt": "ffn_dim",
    "falcon": "ffn_hidden_size",
}
ALWAYS_BIASED = ("gpt2", "gpt_neox", "opt", "bloom", "bert", "roberta")
SWITCH = {"llama": "mlp_bias", "falcon": "bias"}
# A norm stands between the MLP and the stream, or over both.
NORM_AFTER_MLP = ("gemma2", "gemma3", "olmo2", *ENCODERS)
GATED = ("qwen2", "qwen3", "llama", "mistral", "gemma2", "gemma3", "phi3", "olmo2")


@cache
def found(family: str) -> tuple[Any, Architecture]:
    """A model and its architecture, shared by the tests that change neither."""
    model = build(family)
    return model, find_architecture(model)


def differences(a: Any, b: Any) -> dict[str, Any]:
    before, after = a.to_dict(), b.to_dict()
    assert before.keys() == after.keys()
    return {name: after[name] for name in after if after[name] != before[name]}


# Widths


@pytest.mark.parametrize("family", FAMILIES)
def test_unchanged_widths_give_an_equal_config_that_is_another(family: str) -> None:
    model, architecture = found(family)
    widths = [N_NEURONS_OF.get(family, N_NEURONS)] * N_LAYERS
    config = config_with_widths(model, architecture, widths)
    assert type(config) is type(model.config)
    assert config is not model.config
    assert differences(model.config, config) == {}


@pytest.mark.parametrize("family", [f for f in FAMILIES if f != "bloom"])
@pytest.mark.parametrize("width", [1, 28])
def test_only_the_setting_that_holds_the_width_changes(family: str, width: int) -> None:
    model, architecture = found(family)
    before = model.config.to_dict()
    config = config_with_widths(model, architecture, [width] * N_LAYERS)
    assert differences(model.config, config) == {SETTING[family]: width}
    assert model.config.to_dict() == before
    with torch.device("meta"):
        built = type(model)(config)
    shapes = {tuple(p.shape) for n, p in built.named_parameters() if "layer" in n or ".h." in n}
    assert not any(N_NEURONS in shape or 2 * N_NEURONS in shape for shape in shapes)
    assert any(width in shape or 2 * width in shape for shape in shapes)


def test_a_width_that_follows_from_another_setting_is_set() -> None:
    config = hf.GPT2Config(vocab_size=N_VOCABULARY, n_embd=24, n_layer=2, n_head=4, n_positions=64)
    assert config.n_inner is None
    model = hf.GPT2LMHeadModel(config).eval()
    changed = config_with_widths(model, find_architecture(model), [50, 50])
    assert differences(model.config, changed) == {"n_inner": 50}


def test_settings_of_the_same_value_are_not_mistaken_for_the_width() -> None:
    # Everything is 24: the vocabulary, the stream, the positions, and the MLP last of all.
    config = hf.LlamaConfig(
        vocab_size=24,
        hidden_size=24,
        max_position_embeddings=24,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        pad_token_id=0,
    )
    model = hf.LlamaForCausalLM(config).eval()
    changed = config_with_widths(model, find_architecture(model), [17, 17])
    assert differences(config, changed) == {"intermediate_size": 17}


def test_a_width_that_is_hard_wired_is_refused_by_the_name_of_the_class() -> None:
    model, architecture = found("bloom")
    with refused_naming("BloomForCausalLM", "30 neurons"):
        config_with_widths(model, architecture, [30, 30])


@pytest.mark.parametrize("family", ["llama", "gpt2", "phi3", "bloom", "bert"])
def test_a_width_for_each_layer_is_refused_where_the_config_holds_one(family: str) -> None:
    model, architecture = found(family)
    with refused("allocation", None, type(model).__name__):
        config_with_widths(model, architecture, [28, 30])


class VariedConfig(hf.LlamaConfig):
    """A Llama whose layers each have a width of their own."""

    model_type = "varied-llama"

    def __init__(self, widths: Any = (), **settings: Any) -> None:
        super().__init__(**settings)
        self.widths = list(widths)


class VariedForCausalLM(hf.LlamaForCausalLM):
    config_class = VariedConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        for layer, width in zip(self.model.layers, config.widths, strict=True):
            own = deepcopy(config)
            own.intermediate_size = width
            layer.mlp = LlamaMLP(own)
        self.post_init()


def varied(*widths: int) -> VariedForCausalLM:
    torch.manual_seed(0)
    config = VariedConfig(
        widths,
        vocab_size=N_VOCABULARY,
        hidden_size=N_HIDDEN,
        intermediate_size=8,
        num_hidden_layers=len(widths),
        num_attention_heads=4,
        max_position_embeddings=64,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    return VariedForCausalLM(config).eval()


@pytest.mark.parametrize("old", [(40, 40), (40, 32)])
@pytest.mark.parametrize("new", [[28, 30], [28, 28], [40, 28]])
def test_a_width_for_each_layer_is_taken_where_the_config_holds_a_list(
    old: tuple[int, ...], new: list[int], tmp_path: Path
) -> None:
    model = varied(*old)
    config = config_with_widths(model, find_architecture(model), new)
    assert config.widths == new
    assert differences(model.config, config) == {"widths": new}
    VariedForCausalLM(config).save_pretrained(tmp_path)
    loaded = find_architecture(VariedForCausalLM.from_pretrained(tmp_path).eval())
    assert [block.mlp.n_neurons for block in loaded.blocks if block.mlp] == new


# Biases


@pytest.mark.parametrize("family", [*FAMILIES, *MIXTURES])
def test_which_families_can_have_a_bias(family: str) -> None:
    model, architecture = found(family)
    assert has_output_bias(architecture) == (family in ALWAYS_BIASED)
    assert can_have_bias(model, architecture) == (family in ALWAYS_BIASED or family in SWITCH)


@pytest.mark.parametrize("family", SWITCH)
@pytest.mark.parametrize("width", [N_NEURONS, 28])
def test_a_bias_is_switched_on_by_its_own_setting(family: str, width: int) -> None:
    model, architecture = found(family)
    config = config_with_widths(model, architecture, [width] * N_LAYERS, with_bias=True)
    expected = {SWITCH[family]: True, SETTING[family]: width}
    assert expected.items() >= differences(model.config, config).items()
    assert differences(model.config, config)[SWITCH[family]] is True
    assert has_output_bias(find_architecture(type(model)(config).eval()))


@pytest.mark.parametrize("family", ALWAYS_BIASED)
def test_a_bias_that_is_there_changes_no_setting(family: str) -> None:
    model, architecture = found(family)
    widths = [N_NEURONS_OF.get(family, N_NEURONS)] * N_LAYERS
    config = config_with_widths(model, architecture, widths, with_bias=True)
    assert differences(model.config, config) == {}


def test_a_bias_that_no_setting_gives_is_refused() -> None:
    model, architecture = found("qwen2")
    with refused_naming("Qwen2ForCausalLM", "bias"):
        config_with_widths(model, architecture, [28, 28], with_bias=True)


def test_names_are_those_of_the_whole_model_where_only_its_trunk_was_read() -> None:
    model, _ = found("llama")
    trunk = find_architecture(model.model)
    assert trunk_prefix(model, trunk) == "model."
    assert trunk_prefix(model, find_architecture(model)) == ""
    config = config_with_widths(model, trunk, [28, 28])
    assert differences(model.config, config) == {"intermediate_size": 28}


# What makes a neuron


def _ids() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(2, N_VOCABULARY, (2, 9), generator=generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_neurons_are_what_the_activation_makes_of_the_inputs(
    family: str, dtype: torch.dtype
) -> None:
    model = build(family).to(dtype)
    for block in find_architecture(model).blocks:
        mlp = block.mlp
        assert mlp is not None
        taps: dict[Any, Tap] = {i: Tap(m.module, "output") for i, m in enumerate(mlp.inputs)}
        read = collect(model, taps | {"post": block.taps["mlp_post"]}, _ids())
        inputs = [read[i] for i in range(len(mlp.inputs))]
        if mlp.fused:
            inputs = list(inputs[0].chunk(2, dim=-1))
        assert len(inputs) == (2 if family in GATED else 1)
        copies = [x.clone() for x in inputs]
        assert torch.equal(mlp.neurons(inputs), read["post"])
        # Some activations work in place; what they were given must be left as it was.
        assert all(torch.equal(x, copy) for x, copy in zip(inputs, copies, strict=True))


@pytest.mark.parametrize("family", GATED)
def test_the_gate_is_the_matrix_that_is_named_so(family: str) -> None:
    _, architecture = found(family)
    for block in architecture.blocks:
        mlp = block.mlp
        assert mlp is not None
        # Phi-3's fused matrix holds the gate first.
        assert mlp.fused or "gate" in mlp.inputs[mlp.gate].name


@pytest.mark.parametrize("family", FAMILIES)
def test_whether_the_output_is_added_to_the_stream_as_it_is(family: str) -> None:
    _, architecture = found(family)
    for block in architecture.blocks:
        assert block.mlp is not None
        assert block.mlp.adds_to_stream == (family not in NORM_AFTER_MLP)


def test_the_gate_may_be_the_second_to_be_called() -> None:
    model = build("llama")
    for layer in model.model.layers:
        mlp = layer.mlp
        mlp.forward = lambda x, m=mlp: m.down_proj(m.up_proj(x) * m.act_fn(m.gate_proj(x)))
    for block in find_architecture(model).blocks:
        assert block.mlp is not None
        assert block.mlp.gate == 1
        assert [matrix.name[-9:] for matrix in block.mlp.inputs] == ["p.up_proj", "gate_proj"]
        up, gate = torch.randn(2, 5, N_NEURONS)
        expected = up * torch.nn.functional.silu(gate)
        torch.testing.assert_close(block.mlp.neurons([up, gate]), expected)


class _InPlace(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.relu_()


def test_an_activation_that_works_in_place_is_found() -> None:
    model = build("gpt2")
    for block in model.transformer.h:
        block.mlp.act = _InPlace()
    for block, layer in zip(find_architecture(model).blocks, model.transformer.h, strict=True):
        assert block.mlp is not None
        assert block.mlp.activation is layer.mlp.act
        x = torch.randn(3, N_NEURONS)
        assert torch.equal(block.mlp.neurons([x.clone()]), x.relu())


def test_neurons_of_an_unknown_function_are_not_guessed() -> None:
    # Its tanh is no module.
    mlp = find_architecture(_Odd().eval()).blocks[0].mlp
    assert mlp is not None
    assert mlp.activation is None
    with pytest.raises(ValueError, match="MLP"):
        mlp.neurons([torch.zeros(2, N_NEURONS)])
