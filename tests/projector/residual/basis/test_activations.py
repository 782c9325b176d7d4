"""A ReLU is told from other functions by its values, and what it keeps is counted."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from projector.errors import SettingError
from projector.model.capture import Tap, collect
from projector.residual.basis.activations import (
    THRESHOLD,
    describe_functions,
    probe_function,
    view_activations,
)
from tests.families import subject_of

IDS = [5, 6, 7, 8, 9]


@pytest.mark.parametrize(
    ("function", "name", "distance"),
    [
        (nn.ReLU(), "ReLU", 0.0),
        (nn.ReLU(inplace=True), "ReLU", 0.0),
        # Not by its class: the same values from anything.
        (lambda x: (x + x.abs()) / 2, "ReLU", 0.0),
        (nn.Identity(), "identity", 6.0),
        (nn.SiLU(), "SiLU", 0.2784),
        (nn.GELU(), "GELU", 0.17),
        (nn.GELU(approximate="tanh"), "GELU (tanh)", 0.17),
        (nn.LeakyReLU(0.01), "unnamed", 0.06),
        (lambda x: x.relu().square(), "squared ReLU", 30.0),
    ],
)
def test_functions(function: Callable[[Tensor], Tensor], name: str, distance: float) -> None:
    form = probe_function(function)
    assert form.name == name
    assert form.relu_distance == pytest.approx(distance, abs=1e-3)
    assert (form.curve[0][0], form.curve[-1][0]) == (-6, 6)


@pytest.mark.parametrize(("family", "start"), [("gpt2", 1), ("bert", 0)])
def test_a_causal_sequences_first_token_does_not_set_the_threshold(family: str, start: int) -> None:
    subject = subject_of(family)
    row = view_activations(subject, IDS).layers[1]
    tap = subject.architecture.blocks[1].taps["mlp_post"]
    neurons = collect(subject.model, {"": tap}, subject.inputs(IDS))[""].reshape(len(IDS), -1)
    size = float(neurons[start:].square().mean().sqrt())
    assert row.threshold == pytest.approx(THRESHOLD * size)


def test_a_relu_keeps_what_is_above_zero() -> None:
    subject = subject_of("opt")
    view = view_activations(subject, IDS)
    taps = {
        layer: block.taps["mlp_post"] for layer, block in enumerate(subject.architecture.blocks)
    }
    neurons = collect(subject.model, taps, subject.inputs(IDS))
    for row in view.layers:
        expected = (neurons[row.layer].reshape(len(IDS), -1) > 0).double().mean(1)
        assert row.function == "ReLU"
        assert row.active == pytest.approx(expected.tolist())
        assert row.active == row.positive
        assert row.threshold == 0
        assert len(row.shuffled) == len(IDS)
        assert row.shuffled == row.positive_shuffled
        assert row.shuffled != row.active
    assert view.relu_distance == 0
    assert describe_functions(subject) == "This model uses ReLU exactly."
    assert view.plane is not None
    after = torch.tensor(view.plane.points_after)
    assert torch.equal(after, torch.tensor(view.plane.points_before).clamp_min(0))


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "gemma2", "bert", "phi3"])
def test_another_function_is_named_and_counted_by_its_size(family: str) -> None:
    subject = subject_of(family)
    view = view_activations(subject, IDS, layer=0, neurons=(3, 7))
    is_gated = family in ("llama", "gemma2", "phi3")
    for row in view.layers:
        name = {"llama": "SiLU", "phi3": "SiLU", "gpt2": "GELU (tanh)", "gemma2": "GELU (tanh)"}
        assert (row.function, row.is_gated) == (name.get(family, "GELU"), is_gated)
        # The threshold is small: more is active than is above 0.
        assert row.threshold > 0
        assert sum(row.active) > sum(row.positive)
    if not is_gated:
        tap = subject.architecture.blocks[1].taps["mlp_post"]
        out = collect(subject.model, {0: tap}, subject.inputs(IDS))[0].reshape(len(IDS), -1)
        least = THRESHOLD * out.square().mean().sqrt()
        expected = (out.abs() > least).double().mean(1).tolist()
        assert view.layers[1].active == pytest.approx(expected)
    said = describe_functions(subject)
    assert said.startswith(f"This model uses {row.function}{' with a gate' * is_gated}, not ReLU")
    assert view.sentence.startswith(said)
    plane = view.plane
    assert plane is not None
    assert plane.axes_before == ("neuron 3", "neuron 7")
    assert "picture" in plane.notes[0]
    x = plane.points_before[0][0] * plane.point_unit
    y = plane.points_after[0][0] * plane.point_unit
    if family == "llama":
        # It is the gate that the function acts on.
        gate = Tap(subject.model.model.layers[0].mlp.gate_proj, "output")
        own = collect(subject.model, {0: gate}, subject.inputs(IDS))[0]
        assert x == pytest.approx(float(own[0, 1, 3]), abs=1e-5)
    if family in ("llama", "phi3"):
        assert y == pytest.approx(x / (1 + math.exp(-x)), abs=1e-5)


def test_what_has_no_neurons_says_why() -> None:
    view = view_activations(subject_of("mixtral"), IDS)
    assert view.plane is None
    assert all(row.reason and not row.active for row in view.layers)
    assert view.curve == ()
    assert view.sentence == describe_functions(subject_of("mixtral"))


@pytest.mark.parametrize("neurons", [(3, 3), (0, 40), (-1, 2)])
def test_wrong_neurons(neurons: tuple[int, int]) -> None:
    with pytest.raises(SettingError) as raised:
        view_activations(subject_of("gpt2"), IDS, neurons=neurons)
    assert (raised.value.setting, raised.value.value) == ("neurons", neurons)
