"""What drives each neuron, against all activations looked through one by one."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from projector.corpus.batches import Corpus
from projector.corpus.numbering import CountedTokens, token_numbers
from projector.corpus.tokens import read_corpus
from projector.errors import UserError
from projector.model.architecture.finding import find_architecture
from projector.statistics.examples import Examples, RunningExamples, gather_examples
from tests.conftest import make_text
from tests.families import N_NEURONS, build
from tests.refused import refused_naming

LAYER, N_EXTREMES, N_SAMPLE = 1, 5, 200
# Of many lengths, the shortest with no token that counts.
TEXTS = ["ka", "", *(make_text(n, seed=n) for n in (3, 40, 7, 1, 12, 30, 25, 2, 9, 18, 21))]


def corpus_of(tokenizer: Any, *, packed: bool, skip_first: int) -> Corpus:
    source = [make_text(900)] if packed else TEXTS
    return read_corpus(source, tokenizer, sequence_length=32, skip_first=skip_first, packed=packed)


def module_of(model: Any) -> Any:
    if hasattr(model, "bert"):
        return model.bert.encoder.layer[LAYER].output.dense
    return model.model.layers[LAYER].mlp.down_proj


def all_activations(model: Any, corpus: Corpus) -> NDArray[np.float32]:
    """(T, N), each sequence run alone."""
    passed: list[Tensor] = []
    handle = module_of(model).register_forward_pre_hook(lambda _, args: passed.append(args[0][0]))
    with torch.no_grad():
        for start, end in zip(corpus.starts[:-1], corpus.starts[1:], strict=True):
            model(input_ids=torch.from_numpy(corpus.ids[start:end].astype(np.int64))[None])
    handle.remove()
    return torch.cat(passed).numpy()


def counted(corpus: Corpus) -> list[list[int]]:
    """Numbers of the tokens that count, sequence by sequence."""
    return [
        list(range(int(start) + corpus.skip_first, int(end)))
        for start, end in zip(corpus.starts[:-1], corpus.starts[1:], strict=True)
    ]


def gather(model: Any, corpus: Corpus, **options: Any) -> Examples:
    arguments = {"n_extremes": N_EXTREMES, "n_sample": N_SAMPLE} | options
    return gather_examples(model, find_architecture(model), corpus, LAYER, "mlp_post", **arguments)


@pytest.fixture(scope="module", params=["qwen2", "bert"])
def case(request: pytest.FixtureRequest, tokenizer: Any) -> tuple[Any, Corpus]:
    is_causal = request.param != "bert"
    corpus = corpus_of(tokenizer, packed=is_causal, skip_first=int(is_causal))
    return build(request.param), corpus


@pytest.mark.parametrize("batch_size", [1, 4, 1000])
def test_extremes_are_those_of_all_tokens(case: tuple[Any, Corpus], batch_size: int) -> None:
    model, corpus = case
    values = all_activations(model, corpus)
    found = gather(model, corpus, batch_size=batch_size)
    groups = [group for group in counted(corpus) if group]
    assert len(groups) > N_EXTREMES
    for sign, kept, at in (
        (1, found.highest, found.highest_at),
        (-1, found.lowest, found.lowest_at),
    ):
        assert kept.shape == at.shape == (N_NEURONS, N_EXTREMES)
        for neuron in range(N_NEURONS):
            best = sorted(max(sign * values[t, neuron] for t in group) for group in groups)
            expected = [sign * v for v in best[::-1][:N_EXTREMES]]
            np.testing.assert_allclose(kept[neuron], expected, rtol=1e-4, atol=1e-5)
            tokens = at[neuron].tolist()
            # Each stands where it is said to, at a token that counts, one of a sequence at most.
            np.testing.assert_allclose(kept[neuron], values[tokens, neuron], rtol=1e-4, atol=1e-5)
            homes = [next(k for k, group in enumerate(groups) if t in group) for t in tokens]
            assert len(set(homes)) == N_EXTREMES


@pytest.mark.parametrize("batch_size", [3, 1000])
@pytest.mark.parametrize("n_sample", [1, 50, 10**6])
def test_the_sample_is_drawn_evenly(
    case: tuple[Any, Corpus], n_sample: int, batch_size: int
) -> None:
    model, corpus = case
    values = all_activations(model, corpus)
    found = gather(model, corpus, n_sample=n_sample, batch_size=batch_size)
    tokens = [t for group in counted(corpus) for t in group]
    ranks = [tokens.index(t) for t in found.sample_at.tolist()]
    assert len(ranks) == min(n_sample, len(tokens))
    if n_sample > 1:
        assert (ranks[0], ranks[-1]) == (0, len(tokens) - 1)
        steps = {b - a for a, b in itertools.pairwise(ranks)}
        assert max(steps) - min(steps) <= 1
    assert found.sample.dtype == torch.float16
    np.testing.assert_allclose(
        found.sample.float(), values[found.sample_at.numpy()], rtol=2e-3, atol=2e-3
    )


def test_tokens_are_the_corpus_s(case: tuple[Any, Corpus]) -> None:
    model, corpus = case
    advanced: list[int] = []
    found = gather(model, corpus, batch_size=4, advance=advanced.append)
    assert found.ids.tolist() == corpus.ids.tolist()
    assert found.starts.tolist() == corpus.starts.tolist()
    assert found.n_neurons == N_NEURONS
    assert sum(advanced) == corpus.n_sequences
    assert len(advanced) == -(-corpus.n_sequences // 4)


def test_of_few_sequences_there_are_few_extremes(tokenizer: Any) -> None:
    model = build("qwen2")
    corpus = read_corpus([make_text(20)], tokenizer, sequence_length=32)
    found = gather(model, corpus, n_extremes=9)
    n = corpus.n_sequences
    assert 1 <= n < 9
    for kept, at in ((found.highest, found.highest_at), (found.lowest, found.lowest_at)):
        assert kept.shape == at.shape == (N_NEURONS, 9)
        assert kept[:, :n].isfinite().all()
        assert (at[:, :n] >= 0).all()
        assert (at[:, n:] == -1).all()


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_tokens_on_which_a_neuron_is_not_finite_do_not_count_for_it(
    tokenizer: Any, broken: float
) -> None:
    model = build("qwen2")
    corpus = corpus_of(tokenizer, packed=True, skip_first=1)
    counts = np.bincount(corpus.ids)
    rare = int(np.flatnonzero((counts >= 3) & (counts < 10))[0])
    with torch.no_grad():
        model.model.embed_tokens.weight[rare] = broken
    values = all_activations(model, corpus)
    is_finite = np.isfinite(values).all(axis=1)
    assert 0 < is_finite.sum() < len(values)
    found = gather(model, corpus)
    for sign, kept, at in (
        (1, found.highest, found.highest_at),
        (-1, found.lowest, found.lowest_at),
    ):
        groups = [[t for t in group if is_finite[t]] for group in counted(corpus)]
        for neuron in range(0, N_NEURONS, 7):
            best = sorted(max(sign * values[t, neuron] for t in group) for group in groups if group)
            expected = [sign * v for v in best[::-1][:N_EXTREMES]]
            n = len(expected)
            np.testing.assert_allclose(kept[neuron, :n], expected, rtol=1e-4, atol=1e-5)
            assert (at[neuron, n:] == -1).all()


def test_a_corpus_in_which_nothing_counts_is_refused(tokenizer: Any) -> None:
    corpus = corpus_of(tokenizer, packed=True, skip_first=1)
    empty = Corpus(**{f.name: getattr(corpus, f.name) for f in fields(corpus)} | {"n_tokens": 0})
    with refused_naming("corpus", "no token"):
        gather(build("qwen2"), empty)


def test_work_that_is_stopped_leaves_no_hook(case: tuple[Any, Corpus]) -> None:
    model, corpus = case

    def stop(n: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gather(model, corpus, advance=stop)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_context_stays_within_the_sequence(case: tuple[Any, Corpus]) -> None:
    found = gather(*case)
    ids, starts = found.ids.tolist(), found.starts.tolist()
    for token in range(len(ids)):
        sequence = next(list(range(a, b)) for a, b in itertools.pairwise(starts) if a <= token < b)
        for n_before, n_after in ((0, 0), (2, 3), (1000, 1000)):
            expected = [t for t in sequence if token - n_before <= t <= token + n_after]
            around, focus = found.context(token, n_before, n_after)
            assert around == [ids[t] for t in expected]
            assert focus == expected.index(token)
        assert found.before(token, 4) == [ids[t] for t in sequence if token - 4 < t <= token]


@pytest.fixture
def examples(tokenizer: Any) -> Examples:
    return gather(build("qwen2"), corpus_of(tokenizer, packed=True, skip_first=1))


def test_what_is_saved_is_loaded(examples: Examples, tmp_path: Path) -> None:
    path = tmp_path / "new" / "examples.safetensors"
    examples = replace(examples, cut=("64 tokens in the sample, not 1,024",))
    for _ in range(2):
        examples.save(path)
        loaded = Examples.load(path)
        for field in fields(Examples):
            a, b = getattr(loaded, field.name), getattr(examples, field.name)
            if field.name == "source":
                assert a == b is not None
                continue
            if field.name == "cut":
                assert a == b
                continue
            assert a.dtype == b.dtype
            assert torch.equal(a, b)
    first = path.read_bytes()
    loaded.save(path)
    assert path.read_bytes() == first
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_of_a_file_that_does_not_name_its_text_it_is_not_known(
    examples: Examples, tmp_path: Path
) -> None:
    path = tmp_path / "examples.safetensors"
    examples.save(path)
    metadata = {"format": "transformer-projection-examples", "format_version": "1"}
    save_file(load_file(path), path, metadata={"examples": json.dumps(metadata)})
    loaded = Examples.load(path)
    assert loaded.source is None
    assert torch.equal(loaded.ids, examples.ids)


def test_an_older_version_is_upgraded_where_it_is_read(
    examples: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "examples.safetensors"
    examples.save(path)
    monkeypatch.setattr("projector.statistics.examples.FORMAT_VERSION", 2)
    with refused_naming(path, "version 1"):
        Examples.load(path)
    upgrades = {1: lambda facts: facts | {"source": "of version 2"}}
    monkeypatch.setattr("projector.statistics.examples.UPGRADES", upgrades)
    assert Examples.load(path).source == "of version 2"


def without_a_tensor(path: Path) -> None:
    tensors = load_file(path)
    del tensors["sample"]
    metadata = {"format": "transformer-projection-examples", "format_version": "1"}
    save_file(tensors, path, metadata={"examples": json.dumps(metadata)})


def of_a_newer_version(path: Path) -> None:
    metadata = {"format": "transformer-projection-examples", "format_version": "9"}
    save_file(load_file(path), path, metadata={"examples": json.dumps(metadata)})


def of_another_format(path: Path) -> None:
    save_file(load_file(path), path, metadata={"examples": json.dumps({"format": "x"})})


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "damaged"),
        (lambda path: path.write_bytes(b""), "damaged"),
        (lambda path: path.write_bytes(b"\xff" * 1000), "damaged"),
        (lambda path: path.unlink(), "damaged"),
        (
            lambda path: save_file(load_file(path), path),
            "transformer-projection-examples",
        ),
        (
            lambda path: save_file(load_file(path), path, metadata={"examples": "{"}),
            "damaged",
        ),
        (of_another_format, "transformer-projection-examples"),
        (of_a_newer_version, "version 9"),
        (without_a_tensor, "damaged"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(
    change: Callable[[Path], object], names: str, examples: Examples, tmp_path: Path
) -> None:
    path = tmp_path / "examples.safetensors"
    examples.save(path)
    change(path)
    with refused_naming(path, names):
        Examples.load(path)


def test_a_place_that_can_not_be_written_is_said(examples: Examples, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UserError):
        examples.save(tmp_path / "file" / "examples.safetensors")


def found_by_hand(values: Tensor, batch_lengths: list[int], k: int) -> dict[str, list[Any]]:
    """Of each neuron the k sequences whose greatest is greatest, and where it is first."""
    found: dict[str, list[Any]] = {"highest": [], "lowest": []}
    bounds = list(itertools.pairwise(itertools.accumulate(batch_lengths, initial=0)))
    for name, sign in (("highest", 1), ("lowest", -1)):
        for neuron in range(values.shape[1]):
            best = []
            for a, b in bounds:
                # The first of each sequence does not count.
                own = [(sign * float(values[t, neuron]), t) for t in range(a + 1, b)]
                own = [each for each in own if np.isfinite(each[0])]
                if own:
                    best.append(max(own, key=lambda each: (each[0], -each[1])))
            best.sort(key=lambda each: (-each[0], each[1]))
            found[name].append([(sign * value, t) for value, t in best[:k]])
    return found


@pytest.mark.parametrize("is_ragged", [False, True])
@pytest.mark.parametrize("broken", [None, torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_of_equal_activations_the_first_of_the_corpus_is_shown(
    is_ragged: bool, broken: float | None, dtype: torch.dtype
) -> None:
    """Also where each process has seen every other batch, and after a stop."""
    k, n_neurons, rng = 3, 6, np.random.default_rng(0)
    lengths = [1, 9, 4, 2, 12, 7, 7, 3, 1, 8, 5, 6] if is_ragged else [9] * 12
    starts = np.concatenate([[0], np.cumsum(lengths)])
    # Few values: most are equal to others.
    values = torch.from_numpy(rng.integers(-2, 3, (starts[-1], n_neurons))).to(dtype)
    if broken is not None:
        values[rng.integers(0, starts[-1], 10), rng.integers(0, n_neurons, 10)] = broken
    n_tokens = sum(n - 1 for n in lengths)
    ids = np.zeros(starts[-1], dtype=np.int32)
    corpus = Corpus("made up", "", ids, starts, 1, n_tokens, n_tokens, 0, ())
    drawn = torch.arange(0, n_tokens, 2)

    def run_over(batches: set[int]) -> RunningExamples:
        running, n_before = RunningExamples(n_neurons, drawn, k), 0
        for number, batch in enumerate(corpus.batches(4)):
            if number in batches:
                tokens = CountedTokens.of(batch, torch.from_numpy(starts), n_before)
                rows = torch.full((*batch.keep.shape, n_neurons), 99.0).to(dtype)
                for i, first in enumerate(starts[batch.first : batch.first + len(batch.keep)]):
                    length = lengths[batch.first + i]
                    rows[i, :length] = values[first : first + length]
                running.update(rows.reshape(-1, n_neurons), tokens)
                again = RunningExamples(n_neurons, drawn, k)
                again.load_state(running.state())
                running = again
            n_before += batch.n_tokens
        return running

    class Others:
        """Two processes, of which this is one."""

        def __init__(self, other: RunningExamples) -> None:
            self.parts = iter([other.values, other.at, other.sample])

        def stacked(self, tensor: Tensor) -> Tensor:
            return torch.stack([next(self.parts), tensor])

        def summed(self, tensor: Tensor) -> Tensor:
            return tensor + next(self.parts)

    expected = found_by_hand(values, lengths, k)
    alone, shared = run_over({0, 1, 2}), run_over({1})
    shared.reduce(Others(run_over({0, 2})))
    for found in (alone.found(), shared.found()):
        for name in ("highest", "lowest"):
            for neuron, wanted in enumerate(expected[name]):
                own = zip(found[name][neuron], found[f"{name}_at"][neuron], strict=True)
                assert [(float(v), int(t)) for v, t in own][: len(wanted)] == wanted
        at = token_numbers(corpus, drawn)
        wanted_sample = values[at].float().clamp(-6e4, 6e4).half()
        assert torch.equal(found["sample"].nan_to_num(7), wanted_sample.nan_to_num(7))
