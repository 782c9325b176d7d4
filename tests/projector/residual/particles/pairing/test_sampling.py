"""Sampled continuations are the model's own, and their distances those of each pair run alone."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM

from projector.model.loading import LoadedModel
from projector.progress import Silent
from projector.residual.particles.pairing import sampling
from projector.residual.particles.pairing.aligning import align
from projector.residual.particles.pairing.cost import choose_pairs
from projector.residual.particles.pairing.distances import mean_distances
from projector.residual.particles.pairing.sampling import sample_continuations, sample_distances
from projector.residual.subject import Subject
from tests.families import _LLAMA_LIKE, subject_of
from tests.projector.residual.particles.pairing.test_comparing import (
    BEGINNING,
    END,
    A,
    states_of,
)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "gemma2"])
def test_equal_seeds_give_equal_tokens_with_and_without_a_cache(family: str) -> None:
    subject = subject_of(family)
    found = sample_continuations(subject, BEGINNING, 4, 6, seed=0)
    assert found == sample_continuations(subject, BEGINNING, 4, 6, seed=0, use_cache=False)
    assert found != sample_continuations(subject, BEGINNING, 4, 6, seed=1)
    assert [len(each) for each in found] == [4] * 6


def test_tokens_are_as_frequent_as_the_model_says() -> None:
    subject = subject_of("llama")
    n = 20_000
    drawn = torch.tensor(sample_continuations(subject, BEGINNING, 1, n, seed=0))[:, 0]
    with torch.no_grad():
        expected = subject.model(**subject.inputs(BEGINNING)).logits[0, -1].softmax(-1)
    counted = torch.bincount(drawn, minlength=len(expected)) / n
    assert float((counted - expected).abs().sum() / 2) < 0.06


def test_special_tokens_are_never_drawn() -> None:
    subject = subject_of("llama")
    tokenizer: Any = SimpleNamespace(all_special_ids=list(range(300)))
    subject = Subject(replace(subject.loaded, tokenizer=tokenizer), subject.architecture)
    drawn = sample_continuations(subject, BEGINNING, 2, 50, seed=0)
    assert min(min(each) for each in drawn) >= 300


def sliding() -> Subject:
    """A model that attends to the last 8 tokens in every second layer."""
    options: Any = {**_LLAMA_LIKE, "head_dim": 8, "sliding_window": 8}
    return Subject(
        LoadedModel(Gemma2ForCausalLM(Gemma2Config(**options)).eval(), None, "sliding", "")
    )


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "sliding"])
def test_distances_of_a_padded_batch_are_those_of_each_pair_alone(family: str) -> None:
    subject = sliding() if family == "sliding" else subject_of(family)
    # Longer than the window, so that keys and values of the first tokens are gone.
    before = BEGINNING * 7
    ids_a, ids_b = [*before, 100, *END], [*before, 200, 201, *END]
    shared = align(ids_a, ids_b)
    options: Any = {"n_pairs": 5, "seed": 2, "progress": Silent()}
    found = sample_distances(subject, ids_a, ids_b, shared, **options)
    drawn = sample_continuations(subject, before, 2, 10, seed=2)
    assert (tuple(found.distances.shape), found.n_drawn, found.n_equal) == ((5, 3), 5, 0)
    for i in range(5):
        a = states_of(subject, [*before, *drawn[i][:1], *END])[0][:, -len(END) :]
        b = states_of(subject, [*before, *drawn[5 + i], *END])[0][:, -len(END) :]
        expected = mean_distances(a, b)
        torch.testing.assert_close(found.distances[i], expected, rtol=1e-4, atol=1e-6)


def test_a_prompt_that_the_other_goes_on_with_is_compared_at_its_last_token() -> None:
    subject = subject_of("llama")
    ids_b = [*BEGINNING, 9, 10]
    shared = align(BEGINNING, ids_b)
    options: Any = {"n_pairs": 3, "seed": 0, "progress": Silent()}
    found = sample_distances(subject, BEGINNING, ids_b, shared, **options)
    drawn = sample_continuations(subject, BEGINNING, 2, 6, seed=0)
    a = states_of(subject, BEGINNING)[0][:, -1:]
    b = states_of(subject, [*BEGINNING, *drawn[3]])[0][:, -1:]
    torch.testing.assert_close(found.distances[0], mean_distances(a, b), rtol=1e-4, atol=1e-6)


def test_equal_pairs_are_drawn_anew_and_repeated_ones_run_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    subject = subject_of("llama")
    rounds = [
        [[7], [8], [7], [8], [7], [9], [9], [9]],
        [[7], [5], [7], [8], [7], [6], [5], [9]],
    ]
    monkeypatch.setattr(sampling, "_continue", lambda *args: rounds.pop(0))
    run: list[int] = []
    whole = sampling._run_pairs

    def counted(subject: Subject, rows: list[list[int]], *options: Any) -> torch.Tensor:
        run.append(len(rows) // 2)
        return whole(subject, rows, *options)

    monkeypatch.setattr(sampling, "_run_pairs", counted)
    ids_b = [*BEGINNING, 200, *END]
    options: Any = {"n_pairs": 4, "seed": 0, "progress": Silent()}
    found = sample_distances(subject, A, ids_b, align(A, ids_b), **options)
    # (8, 9), (7, 9), (8, 9); and in the second round (5, 6), behind an equal pair.
    assert (found.n_drawn, found.n_equal, run) == (6, 2, [3])
    assert torch.equal(found.distances[0], found.distances[2])
    assert bool((found.distances[:, 1:] > 0).all())


def test_as_many_pairs_as_take_seconds() -> None:
    shared = align([*BEGINNING, 100, *END], [*BEGINNING, 200, *END])
    assert choose_pairs(10**6, shared, 8, 8, None) == (100, None)
    few, reason = choose_pairs(10**9, shared, 8, 8, None)
    assert (20 <= few < 100, reason) == (True, None)
    # The beginning is run once: it costs nothing.
    long = align([*BEGINNING * 99, 100, *END], [*BEGINNING * 99, 200, *END])
    assert choose_pairs(10**9, long, 302, 302, None) == (few, None)
    none, reason = choose_pairs(10**11, shared, 8, 8, None)
    assert none == 0
    assert reason is not None
    assert "32 minutes" in reason
    assert choose_pairs(10**11, shared, 8, 8, 30) == (30, None)
    assert choose_pairs(1, shared, 8, 8, 0)[0] == 0
