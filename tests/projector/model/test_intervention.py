"""Interventions against weights changed by hand, and what must be left alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from projector.errors import UserError
from projector.model.architecture.finding import find_architecture
from projector.model.architecture.weights import read_weights
from projector.model.capture import Tap, collect
from projector.model.intervention import Ablation, Intervention, Replacement, Shift, intervene
from tests.families import FAMILIES, N_HIDDEN, build, subject_of

NEURONS = torch.tensor([3, 17, 30])
IDS = torch.tensor([[5, 9, 2, 11, 7], [4, 4, 8, 1, 3]])


def hidden(model: Any) -> Tensor:
    trunk = getattr(model, "base_model", model)
    with torch.no_grad():
        return trunk(input_ids=IDS).last_hidden_state


@pytest.mark.parametrize("family", [f for f in FAMILIES if f != "bloom"])
def test_zero_neurons_are_as_if_they_had_no_way_out(family: str) -> None:
    model: Any = build(family).eval()
    block = find_architecture(model).blocks[1]
    before = hidden(model)
    with intervene([Replacement.zero(block.taps["mlp_post"], NEURONS)]):
        found = hidden(model)
    assert torch.equal(hidden(model), before)
    assert block.mlp is not None
    matrix = block.mlp.output
    with torch.no_grad():
        matrix.module.weight.index_fill_(matrix.input_axis, NEURONS, 0.0)  # type: ignore[operator, union-attr]
    torch.testing.assert_close(found, hidden(model), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(found, before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert"])
def test_a_neuron_held_at_a_value_is_a_shift_of_the_output(family: str) -> None:
    model: Any = build(family).eval()
    block = find_architecture(model).blocks[0]
    assert block.mlp is not None
    trunk = getattr(model, "base_model", model)
    values = torch.tensor([0.5, -1.0, 2.0])
    taps = {"neurons": block.taps["mlp_post"], "out": Tap(block.mlp.output.module, "output")}
    plain = collect(trunk, taps, {"input_ids": IDS})
    with intervene([Replacement(block.taps["mlp_post"], NEURONS, values)]):
        changed = collect(trunk, {"out": taps["out"]}, {"input_ids": IDS})["out"]
    step = values - plain["neurons"][..., NEURONS]
    expected = plain["out"] + step @ read_weights(block.mlp).output[:, NEURONS].T
    torch.testing.assert_close(changed, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("site", ["mlp_out", "attn_out", "attn_z", "resid_pre", "resid_post"])
def test_every_site_can_be_held(site: str) -> None:
    model: Any = build("llama").eval()
    architecture = find_architecture(model)
    tap = architecture.blocks[0].taps[site]
    chosen = torch.arange(architecture.blocks[0].widths[site])
    values = torch.linspace(-1, 1, len(chosen))
    reader = {"after": architecture.blocks[0].taps["resid_post"]}
    with intervene([Replacement(tap, chosen, values)]):
        one = hidden(model)
        after = collect(model.base_model, reader, {"input_ids": IDS})["after"]
    assert one.isfinite().all()
    assert not torch.allclose(one, hidden(model))
    if site == "resid_post":
        # The stream is the same at every position from here on.
        torch.testing.assert_close(after, values.expand_as(after))


def test_hooks_are_gone_after_an_error() -> None:
    model: Any = build("llama").eval()
    block = find_architecture(model).blocks[0]
    before = hidden(model)
    with (
        pytest.raises(RuntimeError, match="stop"),
        intervene([Replacement.zero(block.taps["mlp_post"], [1])]),
    ):
        raise RuntimeError("stop")
    assert torch.equal(hidden(model), before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_what_can_not_be_is_refused() -> None:
    model: Any = build("llama").eval()
    tap = find_architecture(model).blocks[0].taps["mlp_post"]
    with (
        pytest.raises(ValueError, match="twice"),
        intervene([Replacement.zero(tap, [1, 1])]),
    ):
        pass
    with (
        pytest.raises(ValueError, match="value"),
        intervene([Replacement(tap, torch.tensor([1, 2]), torch.zeros(3))]),
    ):
        pass
    for number in (40, -1):
        with (
            pytest.raises(ValueError, match="0 to 39"),
            intervene([Replacement.zero(tap, [number])]),
        ):
            hidden(model)


def test_what_the_model_uses_elsewhere_is_not_changed() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Identity(), nn.Identity()

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.first(x), self.second(x)

    model = Twice()
    x = torch.ones(2, 4)
    with intervene([Replacement.zero(Tap(model.first, "input"), [0, 1])]):
        one, two = model(x)
    assert one.sum() == 4
    assert two.sum() == 8
    assert x.sum() == 8


@pytest.mark.parametrize("family", ["qwen3", "gemma2", "gpt_neox"])
def test_ablated_heads_add_nothing(family: str) -> None:
    """The logits are those of a model whose output projection has zeros for these heads."""
    subject = subject_of(family)
    inputs = subject.inputs([5, 9, 2, 7])
    stream = subject.layout.blocks[1]
    assert stream.attention is not None
    assert stream.attention.matrix is not None
    n_inputs = stream.attention.matrix.n_inputs
    weight = stream.attention.matrix.module.weight
    untouched = subject.model(**inputs).logits
    with intervene([Replacement.heads(stream, [1, 3, 3])]):
        given = subject.model(**inputs).logits
    with torch.no_grad():
        kept = weight.clone()
        for head in (1, 3):
            weight[:, head * n_inputs // 4 : (head + 1) * n_inputs // 4] = 0
        expected = subject.model(**inputs).logits
        weight.copy_(kept)
    assert torch.allclose(given, expected, atol=1e-5)
    assert not torch.allclose(given, untouched, atol=1e-3)


def test_heads_take_their_slice_of_the_values() -> None:
    stream = subject_of("llama").layout.blocks[0]
    means = torch.arange(24.0)
    replacement = Replacement.heads(stream, [2], means)
    assert replacement.neurons.tolist() == [12, 13, 14, 15, 16, 17]
    assert replacement.values.tolist() == [12, 13, 14, 15, 16, 17]
    with pytest.raises(ValueError, match="values"):
        Replacement.heads(stream, [2], means[:3])


@pytest.mark.parametrize("head", [-1, 4])
def test_a_head_that_is_not_there_is_named(head: int) -> None:
    stream = subject_of("llama").layout.blocks[0]
    with pytest.raises(UserError) as raised:
        Replacement.heads(stream, [0, head])
    assert (raised.value.setting, raised.value.value) == ("heads", head)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_shift_is_added_to_the_stream_itself(family: str) -> None:
    """The next block reads the stream and the vector, at every position; nothing before it."""
    model: Any = build(family).eval()
    blocks = find_architecture(model).blocks
    trunk = getattr(model, "base_model", model)
    vector = torch.linspace(-2, 3, N_HIDDEN)
    taps = {"before": blocks[0].taps["resid_pre"], "behind": blocks[1].taps["resid_pre"]}
    plain = collect(trunk, taps, {"input_ids": IDS})
    with intervene([Shift(blocks[0].taps["resid_post"], vector, -0.5)]):
        found = collect(trunk, taps, {"input_ids": IDS})
    assert torch.equal(found["before"], plain["before"])
    torch.testing.assert_close(found["behind"], plain["behind"] - 0.5 * vector)


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_is_left_along_an_ablated_direction(family: str) -> None:
    model: Any = build(family).eval()
    blocks = find_architecture(model).blocks
    trunk = getattr(model, "base_model", model)
    direction = 7 * torch.randn(N_HIDDEN)
    unit = direction / direction.norm()
    taps = {"behind": blocks[1].taps["resid_pre"]}
    plain = collect(trunk, taps, {"input_ids": IDS})["behind"]
    with intervene([Ablation(blocks[0].taps["resid_post"], direction)]):
        found = collect(trunk, taps, {"input_ids": IDS})["behind"]
    assert (found @ unit).abs().max() < 1e-5 * plain.norm(dim=-1).max()
    assert (plain @ unit).abs().max() > 0.1
    # Whatever stands at right angles to it is as it was.
    torch.testing.assert_close(found, plain - (plain @ unit)[..., None] * unit)


def test_interventions_at_one_place_follow_one_another() -> None:
    model: Any = build("llama").eval()
    blocks = find_architecture(model).blocks
    tap, vector = blocks[0].taps["resid_post"], torch.ones(N_HIDDEN)
    taps = {"behind": blocks[1].taps["resid_pre"]}
    for order, left in (((0, 1), 0.0), ((1, 0), 2.0 * N_HIDDEN)):
        steps: list[Intervention] = [Shift(tap, vector, 2.0), Ablation(tap, vector)]
        with intervene([steps[i] for i in order]):
            found = collect(model.base_model, taps, {"input_ids": IDS})["behind"]
        torch.testing.assert_close((found @ vector), torch.full(IDS.shape, left), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda tap: Shift(tap, torch.ones(2, 3)),
        lambda tap: Shift(tap, torch.tensor([1.0, float("nan")])),
        lambda tap: Shift(tap, torch.ones(N_HIDDEN), float("inf")),
        lambda tap: Ablation(tap, torch.zeros(N_HIDDEN)),
        lambda tap: Ablation(tap, torch.ones(N_HIDDEN - 1)),
    ],
)
def test_a_vector_that_can_not_be_added_is_refused(wrong: Any) -> None:
    model: Any = build("llama").eval()
    block = find_architecture(model).blocks[0]
    with (
        pytest.raises(ValueError, match=r"vector|scale"),
        intervene([wrong(block.taps["resid_post"])]),
    ):
        hidden(model)
