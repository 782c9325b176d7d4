"""One vector a prompt: the model's own, whatever runs beside it; outlying tokens are left out."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from projector.errors import SettingError
from projector.model.capture import collect
from projector.model.loading import LoadedModel
from projector.residual.contrast import states as room
from projector.residual.contrast.prompts import PromptSets
from projector.residual.contrast.records import Point
from projector.residual.contrast.states import collect_states
from projector.residual.subject import Subject
from tests.families import CLOSE_PER_BLOCK, build

POSITIVE = tuple(f"ka lo {'mi ' * (i % 5)}{i}" for i in range(12))
NEGATIVE = tuple(f"ten {'ra so ' * (i % 4)}vel {i}" for i in range(11))


def sets_of(positive: tuple[str, ...], negative: tuple[str, ...]) -> PromptSets:
    n = len(positive)
    groups = tuple(range(n)), tuple(range(n, n + len(negative)))
    return PromptSets("made", positive, negative, "one", "other", *groups, (), "")


def subject_of(family: str, tokenizer: Any) -> Subject:
    return Subject(LoadedModel(build(family), tokenizer, family, ""))


@pytest.mark.parametrize("at", ["last", "mean"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "gemma2", "bert", "opt_350m"])
def test_vectors_are_those_of_prompts_that_run_alone(family: str, at: str, tokenizer: Any) -> None:
    subject = subject_of(family, tokenizer)
    sets = sets_of(POSITIVE, NEGATIVE)
    found = collect_states(subject, sets, at=at, keep_outliers=True)
    assert (found.n_positive, found.n_layers) == (12, 2)
    streams = [Point(i, f"resid_{name}") for i in (0, 1) for name in ("pre", "mid", "post")]
    blocks = subject.architecture.blocks
    read = tuple(each for each in streams if each.stream in blocks[0].taps)
    assert found.points == read
    assert set(found.missing) == ({"resid_mid"} if len(read) < 6 else set())
    taps = {each: blocks[each.layer].taps[each.stream] for each in read}
    for side, texts in enumerate((POSITIVE, NEGATIVE)):
        for i, text in enumerate(texts):
            ids = subject.encode(text)
            alone = collect(subject.model, taps, subject.inputs(ids))
            for point, values in alone.items():
                rows = values.reshape(len(ids), -1).double()
                start = 1 if subject.architecture.is_causal and len(ids) > 1 else 0
                expected = rows[-1] if at == "last" else rows[start:].mean(dim=0)
                given = found.at(point)[side][i].double()
                torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-4)
    for layer in (0, 1):
        update, parts = found.update(layer), found.updates(layer)
        if family in CLOSE_PER_BLOCK:
            assert (parts.attention, parts.mlp) == (None, None)
            assert parts.reason
            continue
        assert parts.attention is not None
        assert parts.mlp is not None
        for side in (0, 1):
            summed = parts.attention[side] + parts.mlp[side]
            torch.testing.assert_close(summed, update[side], rtol=1e-3, atol=1e-3)
    assert found.additivity_error is None or found.additivity_error < 1e-5


def test_batches_and_places_on_disk_change_nothing(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject, sets = subject_of("llama", tokenizer), sets_of(POSITIVE, NEGATIVE)
    together = collect_states(subject, sets, at="mean")
    monkeypatch.setattr(room, "_NUMBERS_AT_ONCE", 1)
    monkeypatch.setattr(room, "_NUMBERS_IN_MEMORY", 1)
    alone = collect_states(subject, sets, at="mean")
    assert alone.points == together.points
    for point in alone.points:
        for one, other in zip(alone.at(point), together.at(point), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert [each.token for each in alone.outliers] == [each.token for each in together.outliers]


def test_tokens_of_outlying_norm_are_listed_and_left_out(tokenizer: Any) -> None:
    subject = subject_of("llama", tokenizer)
    sets = sets_of((*POSITIVE, "ka lo mi so ra du ka lo"), NEGATIVE)
    ids = subject.encode(sets.positive[-1])
    others = {i for text in (*POSITIVE, *NEGATIVE) for i in subject.encode(text)}
    at, token = next((k, i) for k, i in enumerate(ids) if i not in others and 0 < k < len(ids) - 1)
    with torch.no_grad():
        subject.model.get_input_embeddings().weight[token] *= 1000
    left_out = collect_states(subject, sets, at="mean")
    kept = collect_states(subject, sets, at="mean", keep_outliers=True)
    listed = next(each for each in left_out.outliers if each.token == token)
    assert listed.n == ids.count(token)
    assert listed.text.strip()
    assert listed.times_usual is not None
    assert listed.times_usual > 100
    assert not listed.is_first
    assert (left_out.n_left_out >= 1, kept.n_left_out) == (True, 0)
    tap = {0: subject.architecture.blocks[0].taps["resid_pre"]}
    rows = collect(subject.model, tap, subject.inputs(ids))[0].reshape(len(ids), -1).double()
    without, whole = (each.at(Point(0, "resid_pre"))[0][-1] for each in (left_out, kept))
    assert float(without.norm()) < 0.1 * float(whole.norm())
    torch.testing.assert_close(whole.double(), rows[1:].mean(dim=0), rtol=1e-4, atol=1e-5)
    assert ids[at] == token


def test_a_token_alone_counts(tokenizer: Any) -> None:
    subject = subject_of("llama", tokenizer)
    sets = sets_of(POSITIVE, NEGATIVE)
    for at in ("last", "mean"):
        found = collect_states(subject, sets, at=at)
        assert all(bool(v.isfinite().all()) for p in found.points for v in found.at(p))
    with pytest.raises(SettingError) as error:
        collect_states(subject, sets, at="first")
    assert (error.value.setting, error.value.value) == ("at", "first")
