"""A causal model's states are equal before the prompts differ; where they part is found."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from projector.errors import SettingError, UserError
from projector.model.capture import collect
from projector.residual.particles.pairing import cost
from projector.residual.particles.pairing.aligning import align
from projector.residual.particles.pairing.comparing import causal_error, compare, find_difference
from projector.residual.particles.pairing.sampling import Sampled
from projector.residual.subject import Subject
from tests.families import subject_of

BEGINNING, END = [5, 18, 31], [44, 57, 70, 83]
A, B = [*BEGINNING, 100, *END], [*BEGINNING, 200, 201, *END]
CAUSAL = ("llama", "gpt2", "gpt_neox", "gemma2")


def states_of(subject: Subject, *prompts: list[int]) -> list[Tensor]:
    """(F, T, H) of each prompt, all run as one batch, padded on the right."""
    longest = max(map(len, prompts))
    rows = [ids + [0] * (longest - len(ids)) for ids in prompts]
    mask = [[1] * len(ids) + [0] * (longest - len(ids)) for ids in prompts]
    taps = {
        **subject.architecture.taps(["resid_pre"], [0]),
        **subject.architecture.taps(["resid_post"], range(len(subject.architecture.blocks))),
    }
    inputs = {"input_ids": torch.tensor(rows), "attention_mask": torch.tensor(mask)}
    found = collect(subject.model, taps, inputs)
    shape = (len(prompts), longest, -1)
    stacked = torch.stack([found[key].reshape(shape) for key in taps])
    return [stacked[:, i, : len(ids)] for i, ids in enumerate(prompts)]


def run(subject: Subject, ids_a: list[int], ids_b: list[int], **options: Any) -> Any:
    return compare(subject, ids_a, ids_b, *states_of(subject, ids_a, ids_b), **options)


@contextmanager
def hooked(module: Any, hook: Callable[..., Any]) -> Any:
    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@pytest.mark.parametrize("family", CAUSAL)
def test_states_are_equal_before_the_first_unlike_token(family: str) -> None:
    found = run(subject_of(family), A, B, n_pairs=20)
    assert found.causal_error <= 1e-5 == found.causal_allowed
    assert (found.causal_tokens, found.n_beginning, found.n_end, found.first_unlike) == (3, 3, 4, 3)
    difference = found.first_difference
    assert (difference.position, difference.at, difference.n_samples) == (3, "end", 20)
    assert [each.layer for each in difference.per_frame] == [None, 0, 1]
    assert all(each.distance > 0 for each in difference.per_frame[1:])
    assert found.as_dict()["causal_zeros"]["tokens"] == 3
    assert set(found.reasons) == ({"first_difference"} if difference.frame is None else set())


def test_an_encoder_has_no_causal_zeros_and_no_sampled_pairs() -> None:
    found = run(subject_of("bert"), A, B)
    assert found.causal_error is None
    assert found.as_dict()["causal_zeros"] is None
    difference = found.first_difference
    assert (difference.n_samples, difference.layer, difference.chance) == (0, None, None)
    assert difference.distance == difference.per_frame[-1].distance > 0
    assert difference.per_frame[1].exceeds is None
    assert set(found.reasons) == {"causal_zeros", "first_difference"}


@pytest.mark.parametrize("family", CAUSAL)
def test_a_model_that_looks_ahead_is_refused(family: str) -> None:
    subject = subject_of(family)

    def look_ahead(module: Any, args: Any, output: Any) -> Any:
        states = output[0] if isinstance(output, tuple) else output
        changed = states + 1e-3 * states.mean(dim=1, keepdim=True)
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    with (
        hooked(subject.architecture.blocks[1].module, look_ahead),
        pytest.raises(UserError) as told,
    ):
        run(subject, A, B, n_pairs=20)
    assert "layer 1" in str(told.value)


@pytest.mark.parametrize("token", range(len(BEGINNING)))
def test_every_token_of_the_shared_beginning_is_compared(token: int) -> None:
    subject = subject_of("llama")

    def look_ahead(module: Any, args: Any, output: Any) -> Any:
        states = (output[0] if isinstance(output, tuple) else output).clone()
        states[:, token] += 1e-2 * states[:, len(BEGINNING)]
        return (states, *output[1:]) if isinstance(output, tuple) else states

    with (
        hooked(subject.architecture.blocks[1].module, look_ahead),
        pytest.raises(UserError, match=f"layer 1, at token {token}"),
    ):
        run(subject, A, B, n_pairs=0)


def test_the_layer_and_token_that_are_off_are_named() -> None:
    before = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(0)) + 1
    after = before.clone()
    assert causal_error(before, after, 1e-5) == 0
    after[2, 1] += 1e-4
    with pytest.raises(UserError, match=r"layer 1, at token 1"):
        causal_error(before, after, 1e-5)
    assert 1e-5 < causal_error(before, after, 2e-2) < 1e-3


def test_half_precision_has_a_bound_of_its_own() -> None:
    subject = subject_of("llama", torch.bfloat16)
    found = run(subject, A, B, n_pairs=20)
    assert found.causal_error <= found.causal_allowed == 2e-2


def planted_difference(subject: Subject, layer: int) -> Any:
    """Two tokens of one embedding, so that nothing tells them; and layer ``layer`` writes a vector
    of its own at the end of whatever follows one of them."""
    table = subject.model.get_input_embeddings()
    with torch.no_grad():
        table.weight[200] = table.weight[100]
    seen: list[Tensor] = []
    direction = torch.randn(24, generator=torch.Generator().manual_seed(3))

    def note(module: Any, args: Any, output: Any) -> None:
        seen[:] = [args[0]]

    def plant(module: Any, args: Any, output: Any) -> Any:
        states = (output[0] if isinstance(output, tuple) else output).clone()
        rows = (seen[0] == 200).any(dim=1)
        states[rows, -len(END) :] += (
            30 * states[rows, -len(END) :].norm(dim=-1)[..., None] * (direction / direction.norm())
        )
        return (states, *output[1:]) if isinstance(output, tuple) else states

    with hooked(table, note), hooked(subject.architecture.blocks[layer].module, plant):
        return run(subject, A, [*BEGINNING, 200, *END], n_pairs=20, seed=1)


@pytest.mark.parametrize("layer", [0, 1])
def test_a_planted_difference_is_found_at_its_layer(layer: int) -> None:
    found = planted_difference(subject_of("llama"), layer).first_difference
    assert (found.layer, found.frame, found.reason) == (layer, layer + 1, None)
    assert found.distance > found.null_high >= found.null_median > 0
    assert [each.distance for each in found.per_frame[: layer + 1]] == [0] * (layer + 1)
    assert found.stays is True


def test_tokens_of_one_embedding_part_nowhere() -> None:
    subject = subject_of("llama")
    with torch.no_grad():
        table = subject.model.get_input_embeddings().weight
        table[200] = table[100]
    found = run(subject, A, [*BEGINNING, 200, *END], n_pairs=20).first_difference
    assert (found.layer, found.frame, found.position, found.stays) == (None, None, 3, None)
    assert found.reason


def test_without_a_shared_end_the_last_tokens_are_compared() -> None:
    subject = subject_of("gpt2")
    ids_a, ids_b = [*BEGINNING, 9, 10], [*BEGINNING, 9, 11]
    found = run(subject, ids_a, ids_b, n_pairs=20).first_difference
    assert (found.at, found.position) == ("last", 4)
    (a, b) = states_of(subject, ids_a, ids_b)
    expected = (a[:, -1] - b[:, -1]).norm(dim=-1) / (
        (a[:, -1].norm(dim=-1) + b[:, -1].norm(dim=-1)) / 2
    )
    got = torch.tensor([each.distance for each in found.per_frame])
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)


def test_equal_prompts_and_prompts_without_a_shared_beginning() -> None:
    subject = subject_of("llama")
    found = run(subject, A, A)
    assert (found.first_difference, found.first_unlike) == (None, None)
    assert found.causal_error <= 1e-5
    assert "first_difference" in found.reasons
    found = run(subject, A, [6, *A[1:]])
    assert (found.causal_error, found.n_beginning, found.first_difference.n_samples) == (None, 0, 0)
    assert set(found.reasons) == {"causal_zeros", "first_difference"}


def test_the_first_frame_above_the_null_is_told_with_its_chance() -> None:
    shared = align(A, B)
    null = torch.tensor([[0.0, 1, 1, 1], [0, 2, 2, 2], [0, 3, 3, 3], [0, 4, 4, 4]]).double()
    distances = torch.tensor([0.0, 3.8, 5.0, 1.0])
    found = find_difference(distances, Sampled(null, 5, 1), shared)
    assert (found.frame, found.layer, found.stays) == (2, 1, False)
    assert found.null_high == pytest.approx(3.85)
    assert found.null_median == 2.5
    # The largest of the pairs exceeds the others in every frame but the first.
    assert found.chance == 0.25
    assert (found.n_samples, found.n_drawn, found.n_equal) == (4, 5, 1)
    # What rounding explains is no difference.
    small = torch.tensor([1e-6, 0.0, 0.0, 0.0])
    found = find_difference(small, Sampled(0 * null, 4, 0), shared, floor=1e-5)
    assert (found.frame, found.chance) == (None, 0.0)
    # 3.9 is above the percentile of the three others, which is 3.8; not of all four.
    null[2] = 3.9
    assert find_difference(small, Sampled(null, 4, 0), shared).chance == 0.5


def test_where_nearly_all_pairs_are_equal_no_layer_is_named() -> None:
    subject = subject_of("llama")
    found = run(certain(subject), A, [*BEGINNING, 200, *END], n_pairs=20).first_difference
    assert (found.layer, found.frame, found.stays, found.chance) == (None, None, None, None)
    assert (found.n_samples, found.n_drawn, found.n_equal) == (0, 200, 200)
    assert "200 of 200" in found.reason
    assert all(each.exceeds is None for each in found.per_frame)


def certain(subject: Subject) -> Subject:
    """The model's tokenizer leaves one token to be sampled."""
    tokenizer: Any = SimpleNamespace(all_special_ids=[i for i in range(1000) if i != 7])
    return Subject(replace(subject.loaded, tokenizer=tokenizer), subject.architecture)


def test_pairs_are_left_out_where_asked_or_where_they_take_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    subject = subject_of("llama")
    found = run(subject, A, B, n_pairs=0).first_difference
    assert (found.n_samples, found.n_drawn, found.layer) == (0, 0, None)
    assert found.distance == found.per_frame[-1].distance > 0
    assert found.reason
    assert run(subject, A, B).first_difference.n_samples == 100
    monkeypatch.setattr(cost, "_OPERATIONS", 1)
    found = run(subject, A, B).first_difference
    assert found.n_drawn == 0
    assert "1 s" in found.reason
    assert run(subject, A, B, n_pairs=20).first_difference.n_samples == 20


def test_wrong_settings_and_states() -> None:
    subject = subject_of("llama")
    for wrong in ({"n_pairs": 1}, {"n_pairs": 19}, {"n_pairs": 10**9}, {"seed": -1}):
        with pytest.raises(SettingError) as told:
            run(subject, A, B, **wrong)
        assert told.value.setting == next(iter(wrong))
    a, b = states_of(subject, A, B)
    a[1, 2, 0] = torch.nan
    with pytest.raises(UserError, match="layer 0, at token 2"):
        compare(subject, A, B, a, b)
