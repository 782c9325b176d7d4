"""Paths through heads on a prompt: they close to what each head adds, and each is the product of
its two heads."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

from projector.errors import UserError
from projector.model.architecture.stream.patterns import watch_patterns
from projector.model.capture import Tap, collect
from projector.residual.circuits.virtual import VirtualHeads, find_virtual_heads
from projector.residual.circuits.weights import Circuits, find_circuits
from projector.residual.contributions import collect_contributions
from projector.residual.subject import Subject
from tests.families import ENCODERS, FAMILIES, subject_of

IDS = [(13 * i + 5) % 300 for i in range(12)]
DECODERS = [family for family in FAMILIES if family not in ENCODERS]


@cache
def found(family: str) -> tuple[Subject, Circuits, VirtualHeads]:
    subject = subject_of(family)
    circuits = find_circuits(subject)
    return subject, circuits, find_virtual_heads(subject, IDS, circuits=circuits, n_paths=4)


@pytest.mark.parametrize("family", DECODERS)
def test_what_a_head_reads_adds_up_to_what_it_adds(family: str) -> None:
    subject, circuits, paths = found(family)
    inputs = paths.inputs
    assert circuits.reasons == {}
    assert len(circuits.layers) == 2
    assert inputs.closure_error <= 2e-5
    assert {"embedding", "L0 H0", "L0 MLP", "biases on the way"} <= set(inputs.parts)
    # What all heads add is taken from the model's own run, in another way.
    given = collect_contributions(subject, IDS, [-1])
    heads = torch.cat([block.heads()[0] for block in given.blocks])
    assert torch.allclose(heads @ inputs.goal.direction, inputs.own, rtol=1e-3, atol=1e-5)
    # The logit is that of the model, where nothing but the stream has a say.
    logits = subject.model(**subject.inputs(IDS)).logits[0, -1].detach()
    assert int(logits.argmax()) == inputs.goal.token
    readout = subject.readout
    rest = float(readout.head_bias([inputs.goal.token]))
    if readout.form is not None:
        rest += float(readout.unembedding([inputs.goal.token])[0] @ readout.form.bias)
    assert inputs.goal.logit == pytest.approx(float(logits.max()), rel=1e-5, abs=1e-5)
    raw = inputs.goal.from_stream / readout.scale + rest
    own = float(readout.finish(torch.tensor(raw)))
    assert own == pytest.approx(float(logits.max()), rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("family", ["qwen2", "gpt2", "gemma2", "olmo2"])
def test_a_virtual_head_is_the_product_of_its_two_heads(family: str) -> None:
    """A₂A₁ ⊗ W_OV₂W_OV₁ on what the first head reads, with norms and biases as the run has them."""
    subject, circuits, paths = found(family)
    patterns: dict[int, Tensor] = {}
    watch_patterns(
        subject.model,
        subject.architecture,
        subject.inputs(IDS),
        lambda layer, pattern: patterns.__setitem__(layer, pattern[0].clone()),
    )
    given = collect_contributions(subject, IDS)
    for row in paths.rows:
        (layer_1, head_1), (layer_2, head_2) = row.first, row.second
        written = given.blocks[layer_1].heads()[:, head_1]
        later, block = circuits.layer(layer_2), given.blocks[layer_2]
        reading = later.reading
        taps = {i: Tap(module, "output") for i, (module, _) in enumerate(reading.norms)}
        normed = collect(subject.model, taps, subject.inputs(IDS)) if taps else {}
        path = reading.freeze(block.pre, tuple(normed[i][0] for i in range(len(taps))))
        weights = later.weights
        w_ov = weights.o[head_2] @ weights.v[weights.group[head_2]]
        # (A ⊗ B) x = A x Bᵀ
        moved = patterns[layer_2][head_2] @ path.apply(written) @ w_ov.T
        assert block.attention_written is not None
        value = block.attention_written.path.apply(moved)[-1] @ paths.inputs.goal.direction
        assert row.value == pytest.approx(float(value), rel=1e-3)
        size = float(paths.inputs.through_two().abs().sum())
        assert row.share == pytest.approx(row.value / size)


@pytest.mark.parametrize("family", ["qwen2", "gpt2", "gemma2"])
def test_where_a_path_comes_from_adds_up_to_it(family: str) -> None:
    subject, circuits, _ = found(family)
    paths = find_virtual_heads(
        subject, IDS, circuits=circuits, n_paths=4, n_positions=len(IDS), position=7, n_control=2
    )
    assert paths.position == 7
    assert len(paths.control) == 2
    for row in paths.rows:
        for places in (row.from_positions, row.via_positions):
            assert sum(value for _, value in places) == pytest.approx(row.value, rel=1e-3)
            assert max(position for position, _ in places) <= 7
    magnitudes = [abs(row.value) for row in paths.rows]
    assert magnitudes == sorted(magnitudes, reverse=True)


def test_paths_to_a_difference_are_the_difference_of_paths() -> None:
    subject, circuits, _ = found("llama")
    values = [
        find_virtual_heads(subject, IDS, circuits=circuits, token=token, against=against).inputs
        for token, against in ((7, None), (11, None), (7, 11))
    ]
    assert torch.allclose(values[0].values - values[1].values, values[2].values, atol=1e-5)
    for name in ("logit", "from_stream"):
        one, other, both = (getattr(each.goal, name) for each in values)
        assert both == pytest.approx(one - other, 1e-4)


def test_shorter_types_close_as_well_as_they_round() -> None:
    paths = find_virtual_heads(subject_of("qwen2", torch.bfloat16), IDS, n_paths=2)
    assert 1e-5 < paths.inputs.closure_error <= 5e-2
    assert paths.as_dict()["rows"][0]["token_percentile"] is not None


def test_an_encoder_has_no_logit_to_follow() -> None:
    with pytest.raises(UserError):
        find_virtual_heads(subject_of("bert"), IDS)


def test_a_layer_without_heads_says_why() -> None:
    _, circuits, _ = found("llama")
    with pytest.raises(UserError):
        circuits.layer(9)
