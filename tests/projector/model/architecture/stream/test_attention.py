"""The weights of heads are those that the model computes with."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from projector.model.architecture.finding import find_architecture
from projector.model.architecture.stream.attention import HeadWeights, find_attentions
from projector.model.architecture.stream.patterns import watch_patterns
from projector.model.architecture.stream.probing.logits import (
    ALIBI,
    BIASES,
    QK_NORM,
    ROTARY,
    SOFTCAP,
    UNKNOWN,
)
from projector.model.architecture.trial import trial_inputs
from projector.model.capture import Tap, collect
from tests.families import FAMILIES, MIXTURES, STREAMS, build


def _heads(model: Any) -> tuple[Any, dict[int, HeadWeights]]:
    architecture = find_architecture(model)
    found = find_attentions(model, architecture)
    weights = {n: each for n, each in found.items() if isinstance(each, HeadWeights)}
    assert len(weights) == len(architecture.blocks), found
    return architecture, weights


# Falcon with ALiBi has no patterns: see test_patterns.py.
EVERY_FAMILY = sorted({*FAMILIES, *MIXTURES, *STREAMS} - {"falcon_in_turn"})
# What shapes attention besides W_QK, by what each family's authors say of it; rotary positions and
# no biases elsewhere.
LEFT_OUT = {
    "qwen2": {ROTARY, BIASES},
    "qwen2_moe": {ROTARY, BIASES},
    "qwen3": {ROTARY, QK_NORM},
    "gemma2": {ROTARY, SOFTCAP},
    "gemma2_capped": {ROTARY, SOFTCAP},
    "gemma3": {ROTARY, QK_NORM},
    "olmo2": {ROTARY, QK_NORM},
    "gpt2": {BIASES},
    "gpt_neox": {ROTARY, BIASES},
    "opt": {BIASES},
    "opt_350m": {BIASES},
    "bloom": {ALIBI, BIASES},
    "phi": {ROTARY, BIASES},
    "glm4": {ROTARY, BIASES},
    "bert": {BIASES},
    "roberta": {BIASES},
}
# Logits are divided by something else than √d: the setting of the config that says so.
SCALES = {"granite": lambda config: config.attention_multiplier}
SCALES |= dict.fromkeys(
    ("gemma2", "gemma2_capped", "gemma3"), lambda config: config.query_pre_attn_scalar**-0.5
)


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_what_a_weights_only_circuit_leaves_out_is_named(family: str) -> None:
    model = build(family)
    _, weights = _heads(model)
    scale_of = SCALES.get(family, lambda _: weights[0].q.shape[1] ** -0.5)
    for each in weights.values():
        assert set(each.left_out) == LEFT_OUT.get(family, {ROTARY})
        assert each.scale == pytest.approx(scale_of(model.config), rel=1e-3)


def test_attention_that_is_not_understood_is_said_to_be() -> None:
    """Where queries are stretched on their way, q kᵀ does not give the pattern."""
    model = build("llama")
    model.model.rotary_emb.register_forward_hook(
        lambda module, args, given: (given[0] * torch.arange(1, 7), given[1])
    )
    _, weights = _heads(model)
    assert UNKNOWN in weights[0].left_out
    assert weights[0].scale is None


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_patterns_and_weights_give_the_attention_output(family: str) -> None:
    """(A ⊗ W_O W_V) x, summed over heads, and biases, is what attention gives."""
    model = build(family)
    architecture, weights = _heads(model)
    inputs = trial_inputs(model, 2, 8)
    patterns: dict[int, torch.Tensor] = {}
    watch_patterns(model, architecture, inputs, lambda n, p: patterns.__setitem__(n, p.clone()))
    taps: dict[object, Tap] = {("x", n): each.input for n, each in weights.items()}
    taps |= {("y", n): Tap(each.output.module, "output") for n, each in weights.items()}
    passed = collect(model, taps, inputs)
    for layer, each in weights.items():
        x, y = (passed[side, layer].reshape(2, 8, -1) for side in "xy")
        group = list(each.group)
        v = torch.einsum("bsh,adh->bsad", x, each.v[group])
        if each.v_bias is not None:
            v = v + each.v_bias[group]
        z = torch.einsum("bats,bsad->btad", patterns[layer], v)
        added = torch.einsum("btad,ahd->bth", z, each.o)
        if each.o_bias is not None:
            added = added + each.o_bias
        assert torch.allclose(added, y, atol=2e-5 * float(y.abs().max()))


@pytest.mark.parametrize("family", ["gpt2", "opt"])
def test_queries_and_keys_give_the_pattern(family: str) -> None:
    """Where nothing is left out but biases, softmax of q kᵀ / √d is the pattern."""
    model = build(family)
    architecture, weights = _heads(model)
    inputs = trial_inputs(model, 2, 8)
    patterns: dict[int, torch.Tensor] = {}
    watch_patterns(model, architecture, inputs, lambda n, p: patterns.__setitem__(n, p.clone()))
    passed = collect(model, {n: each.input for n, each in weights.items()}, inputs)
    for layer, each in weights.items():
        x = passed[layer].reshape(2, 8, -1)
        assert each.q_bias is not None
        assert each.k_bias is not None
        q = torch.einsum("bth,adh->btad", x, each.q) + each.q_bias
        k = torch.einsum("bth,adh->btad", x, each.k) + each.k_bias
        logits = torch.einsum("btad,bsad->bats", q, k) / q.shape[-1] ** 0.5
        logits = logits.masked_fill(torch.ones(8, 8).triu(1).bool(), -torch.inf)
        assert torch.allclose(logits.softmax(-1), patterns[layer], atol=1e-5)


def test_heads_that_share_keys_and_values_are_a_group() -> None:
    _, weights = _heads(build("llama"))
    assert weights[0].group == (0, 0, 1, 1)
    _, weights = _heads(build("falcon"))
    assert weights[0].group == (0, 0, 0, 0)
    assert weights[0].n_groups == 1


def test_weights_of_zero_change_nothing_of_what_is_found() -> None:
    """Heads pruned to nothing: no number that the model computes would show their rows."""
    model = build("llama")
    expected = _heads(model)[1][0]
    with torch.no_grad():
        for name, width in {"q_proj": 12, "k_proj": 6, "v_proj": 6}.items():
            getattr(model.model.layers[0].self_attn, name).weight[:width].zero_()
    found = _heads(model)[1][0]
    for name in ("q_rows", "k_rows", "v_rows"):
        assert getattr(found, name).index.equal(getattr(expected, name).index)
        assert getattr(found, name).matrix.name == getattr(expected, name).matrix.name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_neox", "bloom", "olmo2", "falcon"])
def test_lower_types_change_nothing_of_what_is_found(family: str, dtype: torch.dtype) -> None:
    _, wide = _heads(build(family))
    _, narrow = _heads(build(family).to(dtype))
    for layer, each in narrow.items():
        assert each.q.dtype == dtype
        assert each.group == wide[layer].group
        assert each.left_out == wide[layer].left_out
        for name in ("q_rows", "k_rows", "v_rows"):
            assert getattr(each, name).index.equal(getattr(wide[layer], name).index)
