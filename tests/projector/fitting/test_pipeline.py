"""The pipeline from a model and text to a projection, against the same thing done by hand."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import cpu_offload
from torch import Tensor

import projector
from projector import Projection, UserError
from projector.fitting.checkpoint import checkpoint_path
from projector.fitting.estimating import estimate
from projector.fitting.pipeline import run
from projector.fitting.preparing import Job, prepare
from projector.fitting.settings import FitSettings, split_options
from projector.layouts.costs import dissimilarity, stress_figures
from projector.layouts.solving import Layout, place, solve
from projector.model import loading
from projector.model.architecture.finding import find_architecture
from projector.model.capture import collect
from projector.model.loading import is_spread, load_model
from projector.projection.relaying import relayout
from projector.statistics.gathering import HalfStatistics, in_first_half
from projector.statistics.summary import summarize
from tests.families import ENCODERS, FAMILIES, MIXTURES, N_NEURONS_OF, build
from tests.projections import contents
from tests.refused import refused, refused_naming


def activations_by_hand(job: Job, layer: int, site: str) -> list[Tensor]:
    """Each sequence's counted activations, the model run on one sequence at a time, unpadded."""
    corpus = job.corpus
    found = []
    for start, end in zip(corpus.starts[:-1], corpus.starts[1:], strict=True):
        ids = torch.from_numpy(corpus.ids[start:end].astype(np.int64))[None]
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        taps = {0: job.architecture.blocks[layer].taps[site]}
        found.append(collect(job.trunk, taps, inputs)[0].reshape(ids.shape[1], -1))
    return [rows[corpus.skip_first :] for rows in found]


@pytest.mark.parametrize("family", [*FAMILIES, *MIXTURES])
def test_any_family_from_a_folder(
    family: str, checkpoint: Callable[[str], Path], text_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    projection = projector.fit(str(checkpoint(family)), str(text_file), out=out, max_tokens=1500)
    # As long as the model has room for: RoBERTa counts its positions from behind the padding id.
    limit = {"roberta": 62, "bloom": 256}.get(family, 64)
    if family != "falcon":
        assert projection.facts.corpus.sequence_length == limit
    sites = ["mlp_out", "attn_out"] if family in MIXTURES else ["mlp_post", "mlp_out", "attn_out"]
    assert projection.sites == sites
    if family in MIXTURES:
        assert "experts" in projection.facts.left_out_sites["mlp_post"]
    else:
        n_neurons = projection.positions(0, "mlp_post").shape[0]
        assert n_neurons == N_NEURONS_OF.get(family, 40)
    assert projection.facts.model.is_causal == (family not in ENCODERS)
    assert projection.facts.corpus.skip_first == (0 if family in ENCODERS else 1)
    for layer, site in projection.maps:
        positions, figures = projection.positions(layer, site), projection.figures(layer, site)
        undefined = (~positions.isfinite().all(dim=1)).nonzero()[:, 0].tolist()
        # OPT's neurons are ReLUs, and some of these never fire.
        assert undefined == figures["dead_neurons"], (layer, site)
        assert len(undefined) < 5
        assert projection.figures(layer, site)["n_tokens"] == 1500
    assert Projection.load(out).facts == projection.facts


@pytest.mark.parametrize("family", ["qwen2", "bert", "opt"])
@pytest.mark.parametrize("batch_size", [1, 7])
def test_statistics_equal_those_of_activations_gathered_by_hand(
    family: str, batch_size: int, checkpoint: Callable[[str], Path], text_file: Path
) -> None:
    settings = FitSettings(
        max_tokens=1200, sequence_length=40, batch_size=batch_size, sites=("mlp_post", "attn_z")
    )
    job = prepare(str(checkpoint(family)), str(text_file), settings)
    projection = run(job)
    for layer, site in projection.maps:
        rows = torch.cat(activations_by_hand(job, layer, site)).double().numpy()
        assert len(rows) == 1200
        # OPT's neurons are ReLUs: some never fire, and have no correlation by hand either.
        still = rows.std(axis=0) == 0
        assert projection.figures(layer, site)["dead_neurons"] == np.flatnonzero(still).tolist()
        with np.errstate(invalid="ignore"):
            exact = np.corrcoef(rows.T)
        np.testing.assert_allclose(
            projection.correlation(layer, site).numpy(), exact, atol=1e-5, rtol=0, equal_nan=True
        )
        np.testing.assert_allclose(
            projection.mean(layer, site).numpy(), rows.mean(axis=0), rtol=1e-4, atol=1e-6
        )


def test_bf16_statistics_are_those_of_the_bf16_activations(
    checkpoint: Callable[[str], Path], text_file: Path
) -> None:
    settings = FitSettings(max_tokens=1200, sequence_length=40, batch_size=1)
    job = prepare(str(checkpoint("llama")), str(text_file), settings, dtype="bfloat16")
    projection = run(job)
    assert projection.facts.model.dtype == "bfloat16"
    rows = torch.cat(activations_by_hand(job, 1, "mlp_post"))
    assert rows.dtype == torch.bfloat16
    exact = np.corrcoef(rows.double().numpy().T)
    assert np.abs(projection.correlation(1, "mlp_post").numpy() - exact).max() <= 1e-4


@pytest.mark.parametrize(("can", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_a_fit_keeps_bf16_where_the_cpu_multiplies_it_and_says_so(
    can: bool, expected: str, text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "multiplies_bf16", lambda: can)
    settings = FitSettings(max_tokens=300, layers=(0,), sites=("attn_out",))
    job = prepare("bundled", str(text_file), settings, device="cpu")
    projection = run(job, out=tmp_path / "out")
    assert projection.facts.model.dtype == expected
    assert projection.facts.run is not None
    assert projection.facts.run["dtype"] == expected
    # It is finished, or another run: what the CPU can do has changed.
    monkeypatch.setattr(loading, "multiplies_bf16", lambda: not can)
    other = prepare("bundled", str(text_file), settings, device="cpu")
    with refused_naming(tmp_path / "out", "dtype"):
        run(other, out=tmp_path / "out", resume=True)


def test_skip_first_counts_what_it_is_told(
    checkpoint: Callable[[str], Path], text_file: Path
) -> None:
    for skip in (0, 3):
        settings = FitSettings(max_tokens=900, sequence_length=30, skip_first=skip)
        job = prepare(str(checkpoint("qwen2")), str(text_file), settings)
        projection = run(job)
        rows = torch.cat(activations_by_hand(job, 0, "mlp_out")).double().numpy()
        assert len(rows) == projection.figures(0, "mlp_out")["n_tokens"] == 900
        np.testing.assert_allclose(
            projection.mean(0, "mlp_out").numpy(), rows.mean(axis=0), rtol=1e-4, atol=1e-6
        )


@pytest.mark.parametrize("correlation", ["pooled", "per-sequence"])
def test_correlations_of_both_halves_are_kept(
    correlation: str, checkpoint: Callable[[str], Path], text_file: Path, tmp_path: Path
) -> None:
    settings = FitSettings(
        max_tokens=1200, sequence_length=40, sites=("mlp_post",), correlation=correlation
    )
    job = prepare(str(checkpoint("opt")), str(text_file), settings)
    projection = run(job, out=tmp_path / "out")
    n_bytes = (tmp_path / "out" / "statistics.safetensors").stat().st_size
    assert job.disk_bytes >= n_bytes - 2000
    for layer, site in projection.maps:
        sequences = activations_by_hand(job, layer, site)
        is_first = in_first_half(torch.arange(len(sequences)), len(sequences))
        found = projection.half_correlations(layer, site)
        assert found is not None
        for half, chosen in zip(found, (is_first, ~is_first), strict=True):
            by_hand = HalfStatistics.empty(half.shape[0], correlation, torch.device("cpu"))
            rows = [each for each, own in zip(sequences, chosen.tolist(), strict=True) if own]
            by_hand.covariance.update(torch.cat(rows))
            if by_hand.by_sequence is not None:
                by_hand.by_sequence.update(rows)
            exact = by_hand.correlation()
            assert torch.equal(half.isnan(), exact.isnan())
            assert float((half - exact).nan_to_num().abs().max()) < 3e-4
    # They go along with the statistics, and where these are not kept, nor are they.
    copied = relayout(projection, Layout(objective="linear")).half_correlations(*projection.maps[0])
    assert copied is not None
    without = run(prepare(job.loaded, str(text_file), replace(settings, keep_statistics=False)))
    assert without.half_correlations(*without.maps[0]) is None
    assert without.organisation(*without.maps[0]) == projection.organisation(*projection.maps[0])


@pytest.mark.parametrize("correlation", ["pooled", "per-sequence"])
def test_how_organised_a_map_is_is_saved_as_it_is_measured_from_what_is_kept(
    correlation: str, checkpoint: Callable[[str], Path], text_file: Path
) -> None:
    settings = FitSettings(max_tokens=1200, sequence_length=40, correlation=correlation)
    projection = run(prepare(str(checkpoint("qwen2")), str(text_file), settings))
    names = list(projection.facts.maps)
    unknown = {name: replace(projection.facts.maps[name], organisation=None) for name in names}
    older = replace(projection, facts=replace(projection.facts, maps=unknown))
    for key in projection.maps:
        saved, measured = projection.organisation(*key), older.organisation(*key)
        assert saved is not None
        assert measured is not None
        assert asdict(measured) == pytest.approx(asdict(saved), rel=1e-3)
        # Chance is that of all tokens, or of those beside each sequence's own mean.
        n, n_tokens = saved.n_neurons, 1200 if correlation == "pooled" else 1170
        by_chance = n / (1 + (n - 1) / n_tokens)
        assert saved.effective_dimension_by_chance == pytest.approx(by_chance, rel=1e-3)


def test_per_sequence_correlation_is_the_mean_of_matrices(
    checkpoint: Callable[[str], Path], text_file: Path
) -> None:
    settings = FitSettings(
        correlation="per-sequence", max_tokens=700, sequence_length=50, sites=("mlp_out",)
    )
    job = prepare(str(checkpoint("qwen2")), str(text_file), settings)
    projection = run(job)
    matrices = [
        np.corrcoef(rows.double().numpy().T) for rows in activations_by_hand(job, 1, "mlp_out")
    ]
    expected = np.mean(matrices, axis=0)
    assert np.abs(projection.correlation(1, "mlp_out").numpy() - expected).max() <= 1e-5
    # The pooled covariance is kept beside it.
    assert "layers.1.mlp_out.covariance" in projection.statistics
    found = stress_figures(
        projection.positions(1, "mlp_out"), dissimilarity(projection.correlation(1, "mlp_out"))
    )
    assert projection.figures(1, "mlp_out")["stress"] == pytest.approx(found[0])


def test_one_call_is_the_stages_one_by_one(
    checkpoint: Callable[[str], Path], text_file: Path
) -> None:
    projection = projector.fit(str(checkpoint("qwen2")), str(text_file), max_tokens=1000, seed=4)
    rho = projection.correlation(0, "mlp_post")
    # From correlations rounded to float32 through the covariance: nearly the same start.
    again = place(rho, dim=3, seed=4)
    torch.testing.assert_close(
        torch.cdist(again, again),
        torch.cdist(*[projection.positions(0, "mlp_post")] * 2),
        atol=2e-2,
        rtol=0,
    )


def test_equal_runs_give_equal_bytes(
    checkpoint: Callable[[str], Path], text_file: Path, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        projector.fit(
            str(checkpoint("qwen2")), str(text_file), out=tmp_path / name, max_tokens=1000
        )
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.parametrize("solver", ["smacof", "adamw"])
def test_a_stopped_fit_resumes_to_the_same_bytes(
    solver: str,
    checkpoint: Callable[[str], Path],
    text_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("projector.fitting.running._CHECKPOINT_EVERY_S", 0.0)
    monkeypatch.setattr("projector.fitting.running._CHECKPOINT_SHARE", float("inf"))
    options: dict[str, Any] = {
        "max_tokens": 2000,
        "sequence_length": 25,
        "batch_size": 8,
        "solver": solver,
        "accumulate": 2 if solver == "adamw" else 1,
        "correlation": "per-sequence",
    }
    model, corpus = str(checkpoint("qwen2")), str(text_file)
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    projector.fit(model, corpus, out=straight, **options)
    assert not checkpoint_path(straight).exists()

    class Stop(Exception):
        pass

    class StopAfter:
        """Progress that ends the fit in its fifth batch."""

        n_left = 5

        def begin(self, stage: str, total: int | None, unit: str) -> None:
            self.stage = stage

        def advance(self, n: int) -> None:
            if self.stage == "Running the model" and n:
                self.n_left -= 1
                if not self.n_left:
                    raise Stop

        def end(self) -> None:
            pass

    with pytest.raises(Stop):
        projector.fit(model, corpus, out=stopped, progress=StopAfter(), **options)
    assert not stopped.exists()
    assert checkpoint_path(stopped).exists()
    with refused("resume", True, "batch_size", 8, 9):
        projector.fit(model, corpus, out=stopped, resume=True, **{**options, "batch_size": 9})
    projector.fit(model, corpus, out=stopped, resume=True, **options)
    assert not checkpoint_path(stopped).exists()
    assert contents(straight) == contents(stopped)


def test_an_old_checkpoint_is_not_overwritten_unasked(
    checkpoint: Callable[[str], Path], text_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    checkpoint_path(out).mkdir()
    work = checkpoint_path(out) / "gathered-0.safetensors"
    work.write_bytes(b"hours of work")
    with refused_naming(out, "resume=True"):
        projector.fit(str(checkpoint("qwen2")), str(text_file), out=out, max_tokens=500)
    with refused_naming(checkpoint_path(out), "damaged"):
        projector.fit(
            str(checkpoint("qwen2")), str(text_file), out=out, max_tokens=500, resume=True
        )
    assert work.read_bytes() == b"hours of work"
    projector.fit(str(checkpoint("qwen2")), str(text_file), out=out, max_tokens=500, force=True)


def test_online_training_lowers_the_stress_of_its_start(
    checkpoint: Callable[[str], Path], text_file: Path
) -> None:
    stresses = {}
    for n_tokens in (200, 6000):
        projection = projector.fit(
            str(checkpoint("qwen2")),
            str(text_file),
            solver="adamw",
            start="single-point",
            lr=0.03,
            max_tokens=n_tokens,
            sequence_length=20,
            batch_size=4,
            sites=["mlp_out"],
        )
        figures = projection.figures(0, "mlp_out")
        stresses[n_tokens] = figures["stress"]
        assert figures["stability"] is None
        assert "adamw" in figures["reasons"]["stability"]
    assert stresses[6000] < 0.3 * stresses[200]


def test_relayout_needs_no_model(checkpoint: Callable[[str], Path], text_file: Path) -> None:
    projection = projector.fit(str(checkpoint("qwen2")), str(text_file), max_tokens=1000)
    flat = projector.relayout(projection, Layout(dim=2))
    assert flat.positions(1, "attn_out").shape == (24, 2)
    assert flat.dim == 2
    assert flat.facts.model == projection.facts.model
    assert torch.equal(flat.covariance(0, "mlp_out"), projection.covariance(0, "mlp_out"))
    linear = projector.relayout(projection, Layout(objective="linear", dim=1))
    costs = linear.figures(0, "mlp_post")["arrangement_cost"]
    assert costs["final"] <= min(costs["spectral"], costs["leaf"]) < costs["random"]
    order = linear.order(0, "mlp_post")
    assert torch.equal(order, torch.argsort(linear.positions(0, "mlp_post")[:, 0], stable=True))
    bare = replace(projection, statistics={})
    with refused("keep_statistics", False, "`projector fit`"):
        projector.relayout(bare, Layout(dim=2))


def test_a_model_in_memory(tokenizer: Any, text: str, checkpoint: Callable[[str], Path]) -> None:
    projection = projector.fit(
        build("gpt2"), [text, text[:500]], tokenizer=tokenizer, max_tokens=800, sequence_length=32
    )
    assert projection.facts.corpus.source == "texts"
    assert projection.facts.model.sha256 == load_model(str(checkpoint("gpt2"))).weights_sha256
    with refused("tokenizer"):
        projector.fit(build("gpt2"), [text])


def test_a_dead_and_a_broken_neuron_are_named(tokenizer: Any, text: str) -> None:
    model = build("gpt2")
    mlp = find_architecture(model.base_model).blocks[0].mlp
    assert mlp is not None
    with torch.no_grad():
        # Conv1D: columns are outputs. One neuron constant, one infinite.
        mlp.inputs[0].module.weight[:, 3] = 0
        mlp.inputs[0].module.bias[5] = torch.inf
        mlp.output.module.weight[5] = 0
    broken = projector.fit(
        model, [text], tokenizer=tokenizer, max_tokens=500, sites=["mlp_post"], layers=[0]
    )
    figures = broken.figures(0, "mlp_post")
    assert figures["dead_neurons"] == [3]
    assert figures["nonfinite_neurons"] == {"5": 500}
    positions = broken.positions(0, "mlp_post")
    assert positions.isnan().all(dim=1).nonzero()[:, 0].tolist() == [3, 5]
    assert broken.correlation(0, "mlp_post")[[3, 5]].isnan().all()


def test_per_sequence_names_what_varies_in_no_sequence() -> None:
    # The second neuron never varies within a sequence, and much between.
    statistics = HalfStatistics.empty(3, "per-sequence", torch.device("cpu"))
    for level in range(6):
        rows = torch.randn(20, 3)
        rows[:, 1] = level
        statistics.covariance.update(rows)
        assert statistics.by_sequence is not None
        statistics.by_sequence.update([rows])
    assert not statistics.covariance.is_dead.any()
    correlation = statistics.correlation()
    placement = solve(correlation, Layout(dim=2))
    assert placement.positions[1].isnan().all()
    nothing = HalfStatistics.empty(3, "per-sequence", torch.device("cpu"))
    found = summarize((statistics, nothing))
    assert found.dead == (1,)
    assert found.nonfinite == {}


def test_a_model_in_training_stays_so_and_is_read_without_dropout(
    tokenizer: Any, text: str
) -> None:
    model = build("gpt2")
    evaluated = projector.fit(model, [text], tokenizer=tokenizer, max_tokens=400)
    model.train()
    model.transformer.h[1].eval()
    trained = projector.fit(model, [text], tokenizer=tokenizer, max_tokens=400)
    assert model.training
    assert not model.transformer.h[1].training
    assert torch.equal(evaluated.correlation(1, "mlp_out"), trained.correlation(1, "mlp_out"))


def test_ctrl_c_leaves_a_checkpoint_that_goes_on_to_the_same_bytes(
    checkpoint: Callable[[str], Path], text_file: Path, tmp_path: Path
) -> None:
    model, corpus = str(checkpoint("qwen2")), str(text_file)
    options: dict[str, Any] = {"max_tokens": 2000, "sequence_length": 25, "batch_size": 8}
    projector.fit(model, corpus, out=tmp_path / "straight", **options)

    class CtrlC:
        """Progress that presses Ctrl-C while the third batch is counted."""

        n_left = 3
        stage = ""

        def begin(self, stage: str, total: int | None, unit: str) -> None:
            self.stage = stage

        def advance(self, n: int) -> None:
            if self.stage == "Running the model" and n:
                self.n_left -= 1
                if not self.n_left:
                    signal.raise_signal(signal.SIGINT)

        def end(self) -> None:
            pass

    out = tmp_path / "stopped"
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        projector.fit(model, corpus, out=out, progress=CtrlC(), **options)
    assert signal.getsignal(signal.SIGINT) is handler
    assert checkpoint_path(out).exists()
    projector.fit(model, corpus, out=out, resume=True, **options)
    assert contents(tmp_path / "straight") == contents(out)


def test_files_that_are_not_there_are_told_of_before_a_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("projector.fitting.preparing.load_model", fail)
    with refused_naming("'no-such-file.txt'", "hf:NAME"):
        projector.fit("bundled", "no-such-file.txt")
    with refused("sites", "mlp_in"):
        projector.fit("bundled", sites=["mlp_in"])


def test_halves_take_turns_and_cover_everything() -> None:
    index = torch.arange(100)
    first = in_first_half(index, 100)
    assert first[:8].all()
    assert not first[8:16].any()
    assert int(first.sum()) == 52
    few = in_first_half(torch.arange(5), 5)
    assert few.tolist() == [True, True, False, False, True]
    assert in_first_half(torch.arange(2), 2).tolist() == [True, False]


def test_no_statistics_are_kept_where_none_are_wanted(
    checkpoint: Callable[[str], Path], text_file: Path, tmp_path: Path
) -> None:
    projection = projector.fit(
        str(checkpoint("qwen2")),
        str(text_file),
        out=tmp_path / "out",
        max_tokens=600,
        keep_statistics=False,
    )
    assert not (tmp_path / "out" / "statistics.safetensors").exists()
    assert projection.figures(0, "mlp_out")["stress"] > 0


def test_the_estimate_tells_tokens_disk_and_time(
    checkpoint: Callable[[str], Path], text_file: Path, tmp_path: Path
) -> None:
    for correlation, keep in (("pooled", True), ("per-sequence", True), ("pooled", False)):
        settings = FitSettings(max_tokens=1000, correlation=correlation, keep_statistics=keep)
        job = prepare(str(checkpoint("qwen2")), str(text_file), settings)
        needs = estimate(job)
        out = tmp_path / f"{correlation}-{keep}"
        run(job, out=out)
        on_disk = sum(path.stat().st_size for path in out.rglob("*.safetensors"))
        assert needs.n_tokens == 1000
        assert needs.seconds > 0
        # Headers come on top of the tensors.
        assert needs.disk_bytes == pytest.approx(on_disk, rel=0.1, abs=4000)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sites": ["mlp_in"]}, "mlp_in"),
        ({"layers": [0, 2]}, "layer 2"),
        ({"max_tokens": 5}, "max_tokens 5"),
        ({"sequence_length": 1}, "sequence_length 1"),
        ({"sequence_length": 65}, "65"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"correlation": "spearman"}, "spearman"),
        ({"skip_first": 64, "sequence_length": 64}, "sequence_length 64"),
        ({"sites": "mlp_post"}, "list"),
        ({"dtype": "int8"}, "int8"),
        ({"device": "tpu"}, "tpu"),
        ({"dim": 24}, "dim 24"),
        ({"seed": -1}, "seed -1"),
    ],
    ids=str,
)
def test_settings_that_can_not_be_are_refused(
    options: dict[str, Any], words: str, checkpoint: Callable[[str], Path], text_file: Path
) -> None:
    with pytest.raises(UserError, match=words):
        projector.fit(str(checkpoint("qwen2")), str(text_file), **options)


def test_too_little_text_says_how_much_is_needed(checkpoint: Callable[[str], Path]) -> None:
    with refused_naming("'texts'", 100):
        projector.fit(load_model(str(checkpoint("qwen2"))), ["ka lo mi."])


def test_a_tokenizer_of_another_model_is_refused(text: str, tokenizer: Any) -> None:
    model = build("qwen2")
    model.resize_token_embeddings(50)
    with pytest.raises(UserError, match="319"):
        projector.fit(model, [text], tokenizer=tokenizer)


def test_unknown_options_are_named() -> None:
    with pytest.raises(TypeError, match="dims"):
        split_options({"dims": 3})
    assert split_options({"objective": "linear"})[1][0].dim == 1


@pytest.mark.gpu
def test_on_a_gpu_as_on_the_cpu(checkpoint: Callable[[str], Path], text_file: Path) -> None:
    fits = [
        projector.fit(str(checkpoint("qwen2")), str(text_file), max_tokens=1000, device=device)
        for device in ("cpu", "cuda")
    ]
    for layer, site in fits[0].maps:
        torch.testing.assert_close(
            fits[0].correlation(layer, site), fits[1].correlation(layer, site), atol=1e-4, rtol=0
        )


def test_a_model_spread_by_accelerate_gives_what_it_gives_in_one_place(
    checkpoint: Callable[[str], Path], text_file: Path
) -> None:
    """Its blocks' weights elsewhere, and fetched by hooks when they are run."""
    name, corpus = str(checkpoint("qwen2")), str(text_file)
    plain = projector.fit(name, corpus, max_tokens=800, device="cpu")
    loaded = load_model(name, device="cpu")
    assert not is_spread(loaded.model)
    for block in loaded.model.layers:
        cpu_offload(block, execution_device=torch.device("cpu"), offload_buffers=True)
    assert is_spread(loaded.model)
    assert next(loaded.model.layers[0].parameters()).is_meta
    spread = projector.fit(loaded, corpus, max_tokens=800)
    for layer, site in plain.maps:
        assert torch.equal(plain.covariance(layer, site), spread.covariance(layer, site))
    by_map = projector.fit(name, corpus, max_tokens=800, device_map="auto")
    assert by_map.facts.model == plain.facts.model
    for options, words in (
        ({"device_map": "auto", "device": "cpu"}, "device_map"),
        ({"device_map": "balanced"}, "balanced"),
    ):
        with pytest.raises(UserError, match=words):
            projector.fit(name, corpus, max_tokens=800, **options)
