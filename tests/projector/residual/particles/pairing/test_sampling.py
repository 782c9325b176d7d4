"""Sampled continuations are the model's own, and their distances those of each pair run alone."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from projector.progress import Silent
from projector.residual.particles.pairing import sampling
from projector.residual.particles.pairing.aligning import align
from projector.residual.particles.pairing.distances import mean_distances
from projector.residual.particles.pairing.sampling import (
    count_pairs,
    sample_continuations,
    sample_distances,
)
from projector.residual.subject import Subject
from tests.families import subject_of
from tests.projector.residual.particles.pairing.test_comparing import (
    BEGINNING,
    END,
    A,
    B,
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


def test_distances_of_a_padded_batch_are_those_of_each_pair_alone() -> None:
    subject = subject_of("gpt_neox")
    shared = align(A, B)
    found, n_equal = sample_distances(subject, A, B, shared, n_samples=5, seed=2, progress=Silent())
    drawn = sample_continuations(subject, BEGINNING, 2, 10, seed=2)
    assert (tuple(found.shape), n_equal) == ((5, 3), 0)
    for i in range(5):
        a = states_of(subject, [*BEGINNING, *drawn[i][:1], *END])[0][:, -len(END) :]
        b = states_of(subject, [*BEGINNING, *drawn[5 + i], *END])[0][:, -len(END) :]
        torch.testing.assert_close(found[i], mean_distances(a, b), rtol=1e-4, atol=1e-6)


def test_equal_and_repeated_pairs_are_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = subject_of("llama")
    drawn = [[7], [8], [7], [8], [7], [9], [9], [9]]
    monkeypatch.setattr(sampling, "sample_continuations", lambda *args, **options: drawn)
    run: list[int] = []
    whole = sampling._run_pairs

    def counted(subject: Subject, rows: list[list[int]], n_read: int) -> torch.Tensor:
        run.append(len(rows) // 2)
        return whole(subject, rows, n_read)

    monkeypatch.setattr(sampling, "_run_pairs", counted)
    ids_b = [*BEGINNING, 200, *END]
    shared = align(A, ids_b)
    options: Any = {"n_samples": 4, "seed": 0, "progress": Silent()}
    found, n_equal = sample_distances(subject, A, ids_b, shared, **options)
    # (7, 7), (8, 9), (7, 9), (8, 9).
    assert (n_equal, run) == (1, [2])
    assert not found[0].any()
    assert torch.equal(found[1], found[3])
    assert bool((found[1:, 1:] > 0).all())


def test_as_many_pairs_as_take_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = subject_of("llama")
    assert count_pairs(subject, 10) == 100
    monkeypatch.setattr(sampling, "_OPERATIONS", 1)
    assert count_pairs(subject, 10) == 20
