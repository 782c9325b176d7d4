"""Hidden states: the model's own, also in a padded batch; who is an outlier; rows of a corpus."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from projector.errors import UserError
from projector.model.loading import LoadedModel
from projector.residual.particles import states as reading
from projector.residual.particles.predictions import predict_tokens
from projector.residual.particles.records import PromptTokens
from projector.residual.particles.states import (
    chosen_frames,
    collect_states,
    corpus_rows,
    find_outlying,
    frames_of,
    read_prompt,
    token_cloud,
)
from projector.residual.subject import Subject
from tests.families import build, subject_of
from tests.projector.residual.particles.clouds import make_cloud

FIVE = ("llama", "gpt2", "gpt_neox", "gemma2", "bert")
A, B = [0, 5, 9, 11, 20, 31, 7], [0, 5, 9, 40, 7]


@pytest.mark.parametrize("family", FIVE)
def test_states_are_the_models_own_and_padding_changes_nothing(family: str) -> None:
    subject = subject_of(family)
    found = collect_states(subject, [A, B])
    for ids, states in zip((A, B), found, strict=True):
        with torch.no_grad():
            own = subject.model(**subject.inputs(ids), output_hidden_states=True).hidden_states
        assert states.shape == (3, len(ids), 24)
        assert states.dtype == torch.float32
        # The library's last one is behind the final norm, where there is one.
        n = 3 if family == "bert" else 2
        torch.testing.assert_close(states[:n], torch.cat(own)[:n], rtol=1e-4, atol=1e-5)
        readout_input = states[-1]
        if family != "bert":
            with torch.no_grad():
                logits = subject.model(**subject.inputs(ids)).logits[0]
                read = subject.readout.logits(readout_input)
            torch.testing.assert_close(read, logits, rtol=1e-4, atol=1e-4)


def test_a_state_that_is_not_finite_is_told_with_its_place() -> None:
    subject = subject_of("llama")
    with torch.no_grad():
        subject.model.get_input_embeddings().weight[9] = torch.inf
    with pytest.raises(UserError) as caught:
        collect_states(subject, [A])
    assert caught.value.setting == "dtype"


def test_tokens_that_the_tokenizer_puts_there_are_told_apart(tokenizer: Any) -> None:
    subject = Subject(LoadedModel(build("llama"), tokenizer, "tiny", ""))
    for text in ("0 x ka lo", "Z y", "ka lo mi", "0"):
        found = read_prompt(subject, text, chat=False)
        assert found.made == (True, *[False] * (len(found.ids) - 1))
        assert "".join(found.pieces[1:]) == text
    assert read_prompt(subject, [0, 5], chat=False).made == (False, False)


def test_an_outlier_is_found_in_either_prompt_and_named_with_its_frame() -> None:
    states = [torch.randn(3, 6, 8), torch.randn(3, 4, 8)]
    states[1][2, 1] *= 100
    prompts = [
        PromptTokens(None, tuple(range(n)), tuple(f"t{i}" for i in range(n)), (False,) * n)
        for n in (6, 4)
    ]
    masks, told = find_outlying(prompts, states, frames_of(2))
    assert not masks[0].any()
    assert masks[1].tolist() == [False, True, False, False]
    (outlier,) = told
    assert (outlier.prompt, outlier.token, outlier.text) == (1, 1, "t1")
    assert outlier.frame == "layer 1"
    cloud = token_cloud(states, frames_of(2), masks)
    assert [(each.prompt, each.token) for each in cloud.owners][6:8] == [(1, 0), (1, 1)]
    assert cloud.outliers.nonzero().tolist() == [[7]]
    torch.testing.assert_close(cloud.vectors[:, 6:], states[1])
    assert not cloud.displacements[0].any()
    moved = (states[0][2] - states[0][1]).norm(dim=-1)
    torch.testing.assert_close(cloud.displacements[2, :6], moved)


def test_rows_of_a_corpus_are_states_of_chosen_frames(tokenizer: Any, text_file: Path) -> None:
    subject = Subject(LoadedModel(build("llama"), tokenizer, "tiny", ""))
    frames = chosen_frames(subject, [1])
    assert frames == [0, 2]
    options: dict[str, Any] = {"max_tokens": 300, "layers": frames, "keep_outliers": True}
    rows, notes = corpus_rows(subject, str(text_file), most_rows=10**6, **options)
    # Five windows of 64 tokens, whose first does not count.
    assert rows.shape[0] % 2 == 0
    assert 500 < rows.shape[0] <= 600
    assert notes
    assert "made-up.txt" in notes[0]
    fewer, _ = corpus_rows(subject, str(text_file), most_rows=100, **options)
    again, _ = corpus_rows(subject, str(text_file), most_rows=100, **options)
    assert 60 < len(fewer) < 140
    assert torch.equal(fewer, again)
    every = {tuple(row) for row in rows.round(decimals=4).tolist()}
    assert {tuple(row) for row in fewer.round(decimals=4).tolist()} <= every


def test_rows_of_a_corpus_follow_seed_frames_and_outliers(
    tokenizer: Any, text_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = Subject(LoadedModel(build("llama"), tokenizer, "tiny", ""))
    asked: dict[str, Any] = {"max_tokens": 300, "most_rows": 10**6}

    def rows(layers: list[int], **more: Any) -> Tensor:
        return corpus_rows(subject, str(text_file), layers=layers, **{**asked, **more})[0]

    def as_set(found: Tensor) -> set[tuple[float, ...]]:
        return {tuple(row) for row in found.round(decimals=4).tolist()}

    # The frames that are asked for, not as many of the first.
    first, last = rows([0], keep_outliers=True), rows([2], keep_outliers=True)
    assert first.shape == last.shape
    assert not as_set(first) & as_set(last)
    assert as_set(rows([0, 2], keep_outliers=True)) == as_set(first) | as_set(last)
    draws = [rows([2], keep_outliers=True, most_rows=100, seed=seed) for seed in (0, 1)]
    assert as_set(draws[0]) != as_set(draws[1])
    # A token of outlying norm is in no frame's rows, unless it is asked for.
    outlier = SimpleNamespace(position=3)
    monkeypatch.setattr(reading, "describe_outliers", lambda norms: [outlier])
    without = rows([2])
    # One token of each window of 64.
    assert len(last) - len(without) == -(-300 // 64)
    assert as_set(without) < as_set(last)
    assert len(rows([2], keep_outliers=True)) == len(last)


def test_nothing_has_moved_at_its_birth() -> None:
    vectors = torch.randn(3, 4, 8)
    born = torch.tensor([0, 0, 1, 2])
    moved = make_cloud(vectors, born=born).displacements
    assert (moved > 0).tolist() == [
        [False] * 4,
        [True, True, False, False],
        [True, True, True, False],
    ]


def test_predictions_of_a_long_prompt_are_those_of_its_last_tokens(tokenizer: Any) -> None:
    subject = Subject(LoadedModel(build("llama"), tokenizer, "tiny", ""))
    found = collect_states(subject, [A, B])
    every, some = predict_tokens(subject, found), predict_tokens(subject, found, most_tokens=6)
    for frame, row in enumerate(some[0]):
        assert row[0] is None
        assert row[1:] == every[0][frame][1:]
    assert some[1] == every[1]
