"""Examples that a fit keeps, against all of its activations looked through one by one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tokenizers.decoders import Decoder
from torch import Tensor

import projector
from projector import Projection, UserError
from projector.fitting import preparing
from projector.fitting.budget import Plan
from projector.fitting.checkpoint import checkpoint_path
from projector.fitting.pipeline import run
from projector.fitting.placing import place_map
from projector.fitting.preparing import Job, prepare
from projector.fitting.settings import FitSettings
from projector.model.capture import collect
from projector.model.loading import load_model
from projector.statistics.example_facts import EXAMPLES_FILE, N_EXTREMES, N_SAMPLE, ExampleFacts
from projector.statistics.examples import Examples
from projector.statistics.gathering import Gatherer
from tests.projections import contents
from tests.refused import refused

MAPS = [(0, "mlp_post"), (1, "attn_out")]
OPTIONS: dict[str, Any] = {
    "sites": ("mlp_post", "attn_out"),
    "max_tokens": 1300,
    "sequence_length": 30,
    "batch_size": 8,
}


def activations(job: Job, layer: int, site: str) -> NDArray[np.float32]:
    """(T, N) of all tokens, each sequence run alone and without padding."""
    corpus, found = job.corpus, []
    for start, end in itertools.pairwise(corpus.starts.tolist()):
        ids = torch.from_numpy(corpus.ids[start:end].astype(np.int64))[None]
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        taps = {0: job.architecture.blocks[layer].taps[site]}
        found.append(collect(job.trunk, taps, inputs)[0].reshape(end - start, -1))
    return torch.cat(found).float().numpy()


def sequences(job: Job) -> list[list[int]]:
    """Numbers of the tokens that count, sequence by sequence."""
    skip = job.corpus.skip_first
    return [list(range(a + skip, b)) for a, b in itertools.pairwise(job.corpus.starts.tolist())]


def assert_right(examples: Examples, values: NDArray[np.float32], groups: list[list[int]]) -> None:
    """Whole examples are those that looking through all activations gives."""
    groups = [group for group in groups if group]
    for sign, kept, at in (
        (1, examples.highest, examples.highest_at),
        (-1, examples.lowest, examples.lowest_at),
    ):
        n_shown = min(kept.shape[1], len(groups))
        for neuron in range(kept.shape[0]):
            best = sorted(max(sign * values[t, neuron] for t in group) for group in groups)
            expected = [sign * v for v in best[::-1][:n_shown]]
            shown, tokens = kept[neuron, :n_shown], at[neuron, :n_shown].tolist()
            np.testing.assert_allclose(shown, expected, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(shown, values[tokens, neuron], rtol=1e-4, atol=1e-5)
            homes = [next(i for i, group in enumerate(groups) if t in group) for t in tokens]
            assert len(set(homes)) == n_shown
            assert (at[neuron, n_shown:] == -1).all()
    counted = [t for group in groups for t in group]
    ranks = [counted.index(t) for t in examples.sample_at.tolist()]
    assert ranks == sorted(set(ranks))
    # One of each stretch of as many.
    n = len(ranks)
    assert all(i * len(counted) // n <= r < (i + 1) * len(counted) / n for i, r in enumerate(ranks))
    np.testing.assert_allclose(
        examples.sample.float(), values[examples.sample_at.numpy()], rtol=2e-3, atol=2e-3
    )


@pytest.mark.parametrize(
    ("family", "more"),
    [
        ("qwen2", {"skip_first": 2}),
        # Documents of their own, and so padding; of a model that counts from the first token.
        ("bert", {}),
        ("qwen2", {"correlation": "per-sequence", "packed": False, "batch_size": 5}),
    ],
)
def test_a_fit_keeps_what_all_activations_say(
    family: str, more: dict[str, Any], checkpoint: Callable[[str], Path], text: str, tmp_path: Path
) -> None:
    # Of many lengths.
    words = text.split()
    cuts = [0, *itertools.accumulate(itertools.islice(itertools.cycle((3, 31, 8, 50, 1)), 30))]
    documents = [" ".join(words[a:b]) for a, b in itertools.pairwise(cuts)]
    settings = FitSettings(**OPTIONS | more)
    job = prepare(str(checkpoint(family)), documents, settings)
    run(job, out=tmp_path / "out")
    found = Projection.load(tmp_path / "out")
    assert found.has_examples
    for key in MAPS:
        examples = found.examples(*key)
        assert examples.ids.tolist() == job.corpus.ids.tolist()
        assert examples.starts.tolist() == job.corpus.starts.tolist()
        assert examples.highest.shape == (found.figures(*key)["n_neurons"], N_EXTREMES)
        assert len(examples.sample) == min(N_SAMPLE, job.corpus.n_tokens)
        assert_right(examples, activations(job, *key), sequences(job))
    texts = found.pieces.texts(job.corpus.ids[:40])
    assert "".join(texts) == job.loaded.tokenizer.decode(
        job.corpus.ids[:40], clean_up_tokenization_spaces=False
    )


@pytest.fixture(scope="module")
def straight(
    checkpoint: Callable[[str], Path], text_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("straight") / "out"
    projector.fit(str(checkpoint("qwen2")), str(text_file), out=out, **OPTIONS)
    return out


def tensors_of(folder: Path) -> dict[str, Tensor]:
    return dict(Projection.load(folder).example_tensors)


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def test_a_stopped_fit_keeps_the_same_bytes(
    checkpoint: Callable[[str], Path],
    text_file: Path,
    straight: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stopped while the model runs, and again while maps are placed."""
    monkeypatch.setattr("projector.fitting.running._CHECKPOINT_EVERY_S", 0.0)
    monkeypatch.setattr("projector.fitting.running._CHECKPOINT_SHARE", math.inf)
    model, out = str(checkpoint("qwen2")), tmp_path / "out"
    n_left = [3]

    def stopping(call: Any) -> Any:
        def stopped(*given: Any, **options: Any) -> Any:
            n_left[0] -= 1
            if n_left[0] < 0:
                raise KeyboardInterrupt
            return call(*given, **options)

        return stopped

    for where, call in (
        ("statistics.gathering.Gatherer.run", Gatherer.run),
        ("fitting.running.place_map", place_map),
    ):
        with monkeypatch.context() as patch:
            n_left[0] = 3
            patch.setattr(f"projector.{where}", stopping(call))
            with pytest.raises(KeyboardInterrupt):
                projector.fit(model, str(text_file), out=out, resume=True, **OPTIONS)
        assert checkpoint_path(out).exists()
    projector.fit(model, str(text_file), out=out, resume=True, **OPTIONS)
    assert contents(out) == contents(straight)


@pytest.mark.parametrize("is_sampled", [False, True])
def test_several_passes_and_maps_without_a_matrix_keep_the_same(
    is_sampled: bool,
    checkpoint: Callable[[str], Path],
    text_file: Path,
    straight: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def plan(needs: Any, widths: Any, *_: object, **__: object) -> Plan:
        passes = tuple((key,) for key in widths)
        samples = dict.fromkeys(widths, 150) if is_sampled else {}
        return Plan(10**12, passes, samples, 10**9, 10**9)

    monkeypatch.setattr(preparing, "plan_fit", plan)
    projector.fit(str(checkpoint("qwen2")), str(text_file), out=tmp_path / "out", **OPTIONS)
    assert_same(tensors_of(tmp_path / "out"), tensors_of(straight))


def test_a_fit_in_memory_has_them_too(
    checkpoint: Callable[[str], Path], text_file: Path, straight: Path
) -> None:
    found = projector.fit(str(checkpoint("qwen2")), str(text_file), **OPTIONS)
    assert_same(dict(found.example_tensors), tensors_of(straight))


def test_only_what_is_shown_of_a_large_corpus_is_kept(
    checkpoint: Callable[[str], Path],
    text_file: Path,
    straight: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And what takes more disk than statistics is cut, the sample first."""
    facts = ExampleFacts(
        n_extremes=2, n_sample=20, n_before=3, n_after=1, is_whole=False, cut=("some",)
    )
    monkeypatch.setattr(preparing, "what_fits", lambda *_: facts)
    out = tmp_path / "out"
    projector.fit(str(checkpoint("qwen2")), str(text_file), out=out, **OPTIONS)
    cut, whole = Projection.load(out), Projection.load(straight)
    assert cut.example_facts == facts
    for key in MAPS:
        some, every = cut.examples(*key), whole.examples(*key)
        assert some.cut == ("some",)
        assert torch.equal(some.highest, every.highest[:, :2])
        assert torch.equal(some.lowest, every.lowest[:, :2])
        assert len(some.ids) < len(every.ids)
        for one, other in ((some.highest_at, every.highest_at), (some.lowest_at, every.lowest_at)):
            for few, all_of_them in zip(one, other[:, :2], strict=True):
                for token, same in zip(few.tolist(), all_of_them.tolist(), strict=True):
                    ids, focus = some.context(token, 3, 1)
                    assert focus == every.context(same, 3, 1)[1]
                    assert ids == every.context(same, 3, 1)[0]
    assert all(int(i) in cut.pieces for i in cut.examples(*MAPS[0]).ids)


def test_none_are_kept_where_none_are_wanted(
    checkpoint: Callable[[str], Path], text_file: Path, straight: Path, tmp_path: Path
) -> None:
    model, out = str(checkpoint("qwen2")), tmp_path / "out"
    found = projector.fit(model, str(text_file), out=out, keep_examples=False, **OPTIONS)
    assert not found.has_examples
    assert not (out / EXAMPLES_FILE).exists()
    with pytest.raises(UserError) as refused:
        found.examples(*MAPS[0])
    with pytest.raises(UserError) as refused:
        _ = found.pieces
    # All else is as it is with them, and with them is another run.
    for key in MAPS:
        assert torch.equal(found.positions(*key), Projection.load(straight).positions(*key))
    with pytest.raises(UserError) as refused:
        projector.fit(model, str(text_file), out=out, resume=True, **OPTIONS)
    assert refused.value.setting == "resume"
    projector.fit(model, str(text_file), out=out, force=True, **OPTIONS)
    assert contents(out) == contents(straight)


class _Decoder:
    """A decoder that is written in Python: how it spells can't be read."""

    def decode_chain(self, tokens: list[str]) -> list[str]:
        return [f"{token} " for token in tokens]


def test_the_text_of_tokens_is_read_before_the_model_runs(
    checkpoint: Callable[[str], Path],
    text_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loaded = load_model(str(checkpoint("qwen2")))
    backend = loaded.tokenizer.backend_tokenizer
    backend.decoder = Decoder.custom(_Decoder())
    found = projector.fit(loaded, str(text_file), **OPTIONS)
    (first,) = found.examples(*MAPS[0]).ids[:1].tolist()
    assert found.pieces.text(first) == loaded.tokenizer.decode([first])

    def broken(*_: object, **__: object) -> str:
        raise TypeError("no text")

    monkeypatch.setattr(type(loaded.tokenizer), "decode", broken)
    monkeypatch.setattr(Gatherer, "run", broken)
    with refused("keep_examples", True, "keep_examples=False"):
        projector.fit(loaded, str(text_file), out=tmp_path / "out", **OPTIONS)
    assert not list(tmp_path.iterdir())
    prepare(loaded, str(text_file), FitSettings(**OPTIONS, keep_examples=False))


def test_disk_and_memory_are_reckoned_with_them(
    checkpoint: Callable[[str], Path], text_file: Path, straight: Path
) -> None:
    jobs = [
        prepare(
            str(checkpoint("qwen2")),
            str(text_file),
            FitSettings(**OPTIONS, keep_examples=keeps),
            in_memory=True,
        )
        for keeps in (True, False)
    ]
    more = jobs[0].disk_bytes - jobs[1].disk_bytes
    size = (straight / EXAMPLES_FILE).stat().st_size
    assert size == pytest.approx(more, rel=0.05, abs=4000)
    gathered = sum(
        tensor.numel() * tensor.element_size()
        for name, tensor in projector.fitting.running.make_gatherer(jobs[0], list(jobs[0].widths))
        .state()
        .items()
        if "/examples/" in name
    )
    assert jobs[0].plan.sums_bytes - jobs[1].plan.sums_bytes == gathered
    # While they are gathered, and where they are kept.
    assert jobs[0].plan.n_bytes - jobs[1].plan.n_bytes == 2 * gathered
