"""Text through the model block by block, and the moments of each layer."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from projector.corpus.documents import hash_documents
from projector.errors import UserError
from projector.model.architecture.finding import find_architecture
from projector.model.architecture.records import Architecture
from projector.model.loading import LoadedModel
from pruning.calibration.mlps import mlps_of
from pruning.calibration.moments import Moments
from pruning.calibration.text import CalibrationText, choose_length, is_held_out, read_calibration
from tests.conftest import make_text
from tests.families import build
from tests.pruning.all_at_once import Calibration, calibrate, check_enough
from tests.refused import refused, refused_naming

LENGTH = 24


@pytest.fixture(scope="module")
def documents(text: str) -> list[str]:
    """Sentences of many lengths, and a long one."""
    return [*[s for s in text.split(".") if s.strip()][:120], make_text(400, seed=9)]


@cache
def _model(family: str) -> tuple[Any, Architecture]:
    model = build(family)
    return model, find_architecture(model)


def load(model: Any, tokenizer: Any) -> LoadedModel:
    return LoadedModel(model, tokenizer, "made-up", "0" * 64)


def read(family: str, tokenizer: Any, documents: list[str]) -> CalibrationText:
    model, architecture = _model(family)
    return read_calibration(documents, load(model, tokenizer), architecture, sequence_length=LENGTH)


def sequences(corpus: Any) -> list[tuple[int, ...]]:
    return [
        tuple(corpus.ids[a:b].tolist())
        for a, b in zip(corpus.starts[:-1], corpus.starts[1:], strict=True)
    ]


# Text


def test_sequences_are_drawn_by_seed(tokenizer: Any, documents: list[str]) -> None:
    text = read("llama", tokenizer, documents)
    everything = sequences(text.corpus)
    first, again, other = (text.draw(20, seed) for seed in (0, 0, 1))
    assert sequences(first) == sequences(again)
    assert sequences(first) != sequences(other)
    for corpus in (first, other):
        drawn = sequences(corpus)
        places = [everything.index(each) for each in drawn]
        assert places == sorted(set(places))
        assert len(drawn) == corpus.n_sequences == 20
        # Whole windows suffice.
        assert {len(each) for each in drawn} == {LENGTH}
        assert corpus.n_tokens == 20 * LENGTH
        assert corpus.n_tokens == sum(batch.n_tokens for batch in corpus.batches(7))
    # The text itself is as it was.
    assert sequences(text.corpus) == everything


def test_shorter_sequences_are_drawn_where_the_longest_do_not_suffice(
    tokenizer: Any, documents: list[str]
) -> None:
    text = read("bert", tokenizer, documents)
    n = text.corpus.n_sequences
    lengths = np.diff(text.corpus.starts)
    n_whole = int((lengths == lengths.max()).sum())
    assert 0 < n_whole < n
    assert set(map(len, sequences(text.draw(n_whole, 0)))) == {LENGTH}
    assert sequences(text.draw(n, 3)) == sequences(text.corpus)
    corpus = text.draw(n - 1, 0)
    assert corpus.n_tokens == sum(batch.n_tokens for batch in corpus.batches(7))


@pytest.mark.parametrize("asked", [0, -3, 10_000])
def test_sequences_that_are_not_there_are_refused(
    asked: int, tokenizer: Any, documents: list[str]
) -> None:
    text = read("llama", tokenizer, documents)
    with refused("n_sequences", asked):
        text.draw(asked, 0)


def test_text_is_named_without_its_place_and_by_the_hashes_of_its_documents(
    tokenizer: Any, text_file: Path, text: str
) -> None:
    model, architecture = _model("llama")
    loaded = load(model, tokenizer)
    found = read_calibration(str(text_file), loaded, architecture, sequence_length=LENGTH)
    assert found.source == found.corpus.source == "made-up.txt"
    assert found.document_hashes == hash_documents([text])
    given = read_calibration([text], loaded, architecture, sequence_length=LENGTH)
    assert given.source == "texts"
    assert sequences(given.corpus) == sequences(found.corpus)
    assert given.document_hashes == found.document_hashes
    with refused_naming("'nowhere.txt'", "hf:NAME"):
        read_calibration("nowhere.txt", loaded, architecture)


def test_only_causal_models_pack_and_every_position_counts(
    tokenizer: Any, documents: list[str]
) -> None:
    causal = read("llama", tokenizer, documents).corpus
    encoder = read("bert", tokenizer, documents).corpus
    assert (causal.skip_first, encoder.skip_first) == (0, 0)
    # Packed, all but the last are full.
    assert (np.diff(causal.starts)[:-1] == LENGTH).all()
    assert (np.diff(encoder.starts) < LENGTH).sum() >= 50


def test_the_length_of_sequences() -> None:
    tokenizer = SimpleNamespace(model_max_length=10**30)
    short = load(build("llama"), tokenizer)
    assert choose_length(short, None) == choose_length(short, 64) == 64
    assert choose_length(short, 2) == 2
    for asked in (1, 0, -1, 65):
        with refused("sequence_length", asked):
            choose_length(short, asked)
    assert choose_length(load(build("llama"), SimpleNamespace(model_max_length=32)), None) == 32
    endless = load(SimpleNamespace(), tokenizer)  # type: ignore[arg-type]
    assert choose_length(endless, None) == 256
    assert choose_length(endless, 5000) == 5000
    with refused("sequence_length", 1, 2):
        choose_length(endless, 1)
    # Of RoBERTa's 64 places the first are never used.
    assert choose_length(load(build("roberta"), tokenizer), None) == 62


# Moments


def _reference(family: str, corpus: Any) -> dict[tuple[int, bool], np.ndarray]:
    """Every layer's neurons over the tokens that count, one sequence at a time, by plain hooks."""
    model, architecture = _model(family)
    seen: list[Tensor] = []
    handles = [
        block.mlp.output.module.register_forward_pre_hook(
            lambda module, args: seen.append(args[0].reshape(-1, args[0].shape[-1]))
        )
        for block in architecture.blocks
        if block.mlp
    ]
    rows: dict[tuple[int, bool], list[np.ndarray]] = {}
    for i, ids in enumerate(sequences(corpus)):
        seen.clear()
        with torch.no_grad():
            model(input_ids=torch.tensor([ids]))
        for layer, tensor in enumerate(seen):
            values = tensor.double().numpy()
            rows.setdefault((layer, i % 5 == 4), []).append(values)
    for handle in handles:
        handle.remove()
    return {key: np.concatenate(parts) for key, parts in rows.items()}


@pytest.mark.parametrize("batch_size", [1, 7, 16])
@pytest.mark.parametrize("family", ["llama", "opt", "bert", "roberta"])
def test_moments_are_those_of_one_pass_without_padding(
    family: str, batch_size: int, tokenizer: Any, documents: list[str]
) -> None:
    model, architecture = _model(family)
    text = read(family, tokenizer, documents)
    found = calibrate(
        load(model, tokenizer), architecture, text, n_sequences=33, seed=2, batch_size=batch_size
    )
    assert sequences(found.corpus) == sequences(text.draw(33, 2))
    assert found.text is text
    reference = _reference(family, found.corpus)
    assert len(found.layers) == 2
    for layer, moments in enumerate(found.layers):
        fit, held_out = reference[layer, False], reference[layer, True]
        everything = np.concatenate([fit, held_out])
        assert len(everything) == found.corpus.n_tokens
        for mine, rows in (
            (moments.fit, fit),
            (moments.held_out, held_out),
            (moments.all, everything),
        ):
            assert mine.n_tokens == len(rows)
            second = rows.T @ rows / len(rows)
            scale = np.sqrt(np.outer(np.diag(second), np.diag(second))).max()
            np.testing.assert_allclose(mine.mean, rows.mean(axis=0), atol=1e-5)
            np.testing.assert_allclose(mine.second, second, atol=1e-5 * scale)
            np.testing.assert_allclose(
                mine.covariance, np.cov(rows.T, bias=True), atol=1e-5 * scale
            )
    assert found.n_fit_tokens == len(reference[0, False])
    drawn = [batch.input_ids for batch in found.batches()]
    assert sum(len(ids) for ids in drawn) == 33


def test_every_fifth_sequence_is_held_out_whatever_the_batches(
    tokenizer: Any, documents: list[str]
) -> None:
    corpus = read("llama", tokenizer, documents).draw(23, 0)
    for batch_size in (1, 4, 5, 16, 100):
        marks = torch.cat([is_held_out(batch) for batch in corpus.batches(batch_size)])
        assert marks.nonzero()[:, 0].tolist() == [4, 9, 14, 19]


def test_too_few_sequences_to_hold_any_out(tokenizer: Any, documents: list[str]) -> None:
    model, architecture = _model("llama")
    text = read("llama", tokenizer, documents)
    found = calibrate(load(model, tokenizer), architecture, text, n_sequences=4)
    for moments in found.layers:
        assert moments.held_out.n_tokens == 0
        assert torch.equal(moments.all.second, moments.fit.second)
        assert moments.all.second.isfinite().all()


def test_the_model_is_left_as_it_was(tokenizer: Any, documents: list[str]) -> None:
    model = build("gpt2").train()
    architecture = find_architecture(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = calibrate(
        load(model, tokenizer), architecture, read("gpt2", tokenizer, documents), n_sequences=10
    )
    assert all(module.training for module in model.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    # Dropout was off.
    again = calibrate(load(model.eval(), tokenizer), architecture, found.text, n_sequences=10)
    assert torch.equal(found.layers[1].fit.second, again.layers[1].fit.second)


def test_moments_against_numpy() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(3, 2, (40, 5)), rng.normal(-1, 1, (13, 5))

    def of(rows: np.ndarray) -> Moments:
        tensor = torch.from_numpy(rows)
        return Moments(len(rows), tensor.mean(dim=0), tensor.T @ tensor / len(rows))

    np.testing.assert_allclose(of(a).covariance, np.cov(a.T, bias=True), rtol=1e-9)
    both, joined = of(np.concatenate([a, b])), of(a).joined(of(b))
    assert joined.n_tokens == 53
    np.testing.assert_allclose(joined.mean, both.mean, rtol=1e-9)
    np.testing.assert_allclose(joined.second, both.second, rtol=1e-9)


# Refusals


def test_neurons_that_are_not_finite_are_counted_once(tokenizer: Any, documents: list[str]) -> None:
    model = build("opt")
    architecture = find_architecture(model)
    text = read("opt", tokenizer, documents)
    with torch.no_grad():
        model.model.decoder.layers[1].fc1.bias[[3, 8]] = torch.inf
    with refused_naming("layer 1", "2 neurons", "dtype='float32'"):
        calibrate(load(model, tokenizer), architecture, text, n_sequences=20)
    with torch.no_grad():
        model.model.decoder.layers[0].fc1.bias[:] = torch.nan
    with refused_naming("layer 0", "40 neurons", "dtype='float32'"):
        calibrate(load(model, tokenizer), architecture, text, n_sequences=20)


def test_a_mixture_of_experts_is_refused() -> None:
    with refused_naming("layer 0", "4 experts"):
        mlps_of(_model("mixtral")[1])
    assert len(mlps_of(_model("llama")[1])) == 2


@pytest.mark.parametrize("n_sequences", [1, 2, 3, 4, 5, 6, 9, 10])
@pytest.mark.parametrize("widest", [60, 96, 97, 200, 216])
def test_the_number_of_sequences_that_is_asked_for_suffices(
    n_sequences: int, widest: int, tokenizer: Any, documents: list[str]
) -> None:
    model, architecture = _model("llama")
    text = read("llama", tokenizer, documents)

    def run(n: int) -> Calibration:
        return calibrate(load(model, tokenizer), architecture, text, n_sequences=n)

    found = run(n_sequences)
    # Every fifth sequence is held out.
    enough = LENGTH * (n_sequences - n_sequences // 5) >= widest
    if enough:
        check_enough(found, [10, widest])
        return
    with refused("n_sequences", n_sequences, f"{widest} neurons") as caught:
        check_enough(found, [10, widest])
    needed = int(str(caught.value).partition("n_sequences=")[2].split()[0])
    assert needed > n_sequences
    check_enough(run(needed), [10, widest])
    with pytest.raises(UserError):
        check_enough(run(needed - 1), [10, widest])


@pytest.fixture(autouse=True)
def _no_grad_is_left_behind() -> Iterator[None]:
    yield
    assert torch.is_grad_enabled()
