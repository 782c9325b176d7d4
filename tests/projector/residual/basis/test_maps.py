"""The maps of a model are its own matrices, whatever its family calls them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from projector.errors import SettingError, UserError
from projector.model.capture import Tap, collect
from projector.residual.basis.maps import NAMES, list_maps, read_map
from tests.families import N_HIDDEN, subject_of

IDS = [5, 6, 7, 8, 9]


def test_maps_of_llama_are_its_weights() -> None:
    subject = subject_of("llama")
    layer: Any = subject.model.model.layers[1]
    assert torch.equal(read_map(subject, 1, "W_O").left, layer.self_attn.o_proj.weight)
    assert torch.equal(read_map(subject, 1, "W_O", 2).left, layer.self_attn.o_proj.weight[:, 12:18])
    # Two heads use the same values.
    assert torch.equal(read_map(subject, 1, "W_V", 2).left, layer.self_attn.v_proj.weight[6:])
    assert torch.equal(read_map(subject, 1, "MLP in").left, layer.mlp.up_proj.weight)
    assert torch.equal(read_map(subject, 1, "MLP gate").left, layer.mlp.gate_proj.weight)
    assert torch.equal(read_map(subject, 1, "MLP out").left, layer.mlp.down_proj.weight)
    both = read_map(subject, 1, "W_OV", 2)
    assert both.right is not None
    product = layer.self_attn.o_proj.weight[:, 12:18] @ layer.self_attn.v_proj.weight[6:]
    expected = product * layer.input_layernorm.weight
    assert torch.allclose(both.left @ both.right, expected, atol=1e-5)
    assert both.notes


def test_a_bias_that_is_left_out_is_said() -> None:
    for family, has_bias in (("gpt2", True), ("llama", False)):
        for name in ("W_O", "W_V", "MLP in", "MLP out"):
            notes = read_map(subject_of(family), 0, name).notes
            assert any("bias" in note for note in notes) is has_bias


@pytest.mark.parametrize("family", ["gpt2", "phi3", "gpt_neox", "bert", "falcon"])
def test_maps_give_what_the_model_gives(family: str) -> None:
    subject = subject_of(family)
    block = subject.architecture.blocks[1]
    for name, matrix in (("W_O", block.attention_output), ("MLP out", block.mlp.output)):
        given = read_map(subject, 1, name)
        module = matrix.module
        taps = {side: Tap(module, side) for side in ("input", "output")}
        passed = collect(subject.model, taps, subject.inputs(IDS))
        bias = getattr(module, "bias", None)
        own = passed["output"].flatten(0, -2) - (0 if bias is None else bias.detach())
        assert torch.allclose(given.apply(passed["input"].flatten(0, -2)), own, atol=1e-4)
    heads = read_map(subject, 1, "W_V")
    assert heads.n_inputs == N_HIDDEN


def test_what_a_layer_lacks_is_said() -> None:
    reasons = {fact.name: fact.reason for fact in list_maps(subject_of("mixtral"), 0)}
    assert tuple(reasons) == NAMES
    assert reasons["W_OV"] is None
    assert "experts" in str(reasons["MLP out"])
    subject = subject_of("gpt2")
    with pytest.raises(UserError) as raised:
        read_map(subject, 0, "MLP gate")
    assert (raised.value.setting, raised.value.value) == ("map", "MLP gate")


@pytest.mark.parametrize(
    ("layer", "name", "head", "setting", "value"),
    [
        (2, "W_O", None, "layer", 2),
        (-1, "W_O", None, "layer", -1),
        (0, "W_Q", None, "map", "W_Q"),
        (0, "W_O", 4, "head", 4),
        (0, "W_OV", None, "head", None),
        (0, "MLP in", 1, "head", 1),
    ],
)
def test_wrong_choices(
    layer: int, name: str, head: int | None, setting: str, value: object
) -> None:
    with pytest.raises(SettingError) as raised:
        read_map(subject_of("llama"), layer, name, head)
    assert (raised.value.setting, raised.value.value) == (setting, value)
