"""Sweeps on tiny models: every combination once, resumable, the same in any number of processes."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from projector.model.context import find_context
from projector.model.loading import load_model
from projector.progress import Silent
from projector.settings import TOLD_BY, setting
from projector.storage.tensors import TensorFile
from pruning.layerwise import budget
from pruning.layerwise.making import LayerMaker
from pruning.methods.registry import METHODS
from pruning.preparing import Origin
from pruning.pruning import prune_model
from pruning.refit.registry import REFITS
from pruning.reporting.files import CSV_FILE, JSON_FILE
from pruning.scoring.perplexity import score
from pruning.scoring.windows import prepare
from pruning.settings import PruneSettings
from pruning.sweep import bench
from pruning.sweep.job import SweepJob, prepare_sweep
from pruning.sweep.report import DENSE, NOT_APPLICABLE, OK, PruningReport, Row
from pruning.sweep.running import begin_report, run_sweep
from pruning.sweep.settings import SweepRequest, SweepSettings
from tests.conftest import make_text
from tests.families import N_HIDDEN, N_LAYERS
from tests.pruning.test_preparing import fit
from tests.refused import refused, refused_naming

Checkpoint = Callable[[str], Path]
SPARSITIES = (0.25, 0.5)
SETTINGS = SweepSettings(
    sparsities=SPARSITIES,
    n_seeds=2,
    n_sequences=20,
    n_steps=3,
    methods=tuple(METHODS),
    refits=tuple(REFITS),
)
N_WINDOWS = 3


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> Iterator[None]:
    transformers.utils.logging.disable_progress_bar()
    yield
    transformers.utils.logging.enable_progress_bar()


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A calibration text and two to score on."""
    folder = tmp_path_factory.mktemp("texts")
    paths = []
    for name, n_words, seed in (("own", 1500, 21), ("like", 250, 22), ("unlike", 240, 23)):
        paths.append(folder / f"{name}.txt")
        paths[-1].write_text(make_text(n_words, seed), encoding="utf-8")
    return paths[0], paths[1], paths[2]


@pytest.fixture(scope="module")
def request_of(
    tmp_path_factory: pytest.TempPathFactory,
    checkpoint: Checkpoint,
    texts: tuple[Path, Path, Path],
) -> Callable[[str], SweepRequest]:
    projections = {
        family: fit(checkpoint(family), texts[0], tmp_path_factory.mktemp("maps") / family)
        for family in ("llama", "qwen2")
    }

    def make(family: str) -> SweepRequest:
        return SweepRequest(
            str(checkpoint(family)),
            SETTINGS,
            str(texts[0]),
            (str(texts[1]), str(texts[2])),
            projections[family],
            n_windows=N_WINDOWS,
            sequence_length=32,
            device="cpu",
        )

    return make


@pytest.fixture(scope="module")
def done(
    request_of: Callable[[str], SweepRequest], tmp_path_factory: pytest.TempPathFactory
) -> tuple[SweepJob, Path]:
    """A whole sweep of a model whose outputs can have a bias; not to be changed."""
    job = prepare_sweep(request_of("llama"))
    out = tmp_path_factory.mktemp("sweeps") / "whole"
    run_sweep(job, out)
    return job, out


def small(job: SweepJob, **changes: Any) -> SweepJob:
    """A quick sweep of the same model."""
    settings = replace(
        SETTINGS,
        **({"methods": ("magnitude", "obs"), "refits": ("none", "bias"), "n_seeds": 1} | changes),
    )
    return replace(job, settings=settings, request=None)


def without_seconds(folder: Path) -> str:
    values = json.loads((folder / JSON_FILE).read_text(encoding="utf-8"))
    for each in values["rows"]:
        assert each.pop("seconds") >= 0
    return json.dumps(values, indent=1)


def test_every_combination_has_a_row_for_each_text(done: tuple[SweepJob, Path]) -> None:
    job, out = done
    report = PruningReport.load(out)
    rows = [row for row in report.rows if row.windows == "sample"]
    expected = {(DENSE, "none", 0.0, 0)} | {
        (method, refit, sparsity, seed)
        for method in METHODS
        for refit in REFITS
        for sparsity in SPARSITIES
        for seed in (0, 1)
    }
    for text in job.samples:
        own = [row.combination for row in rows if row.evaluation == text.source]
        assert len(own) == len(set(own))
        assert set(own) == expected
    assert {row.evaluation for row in rows} == {"like.txt", "unlike.txt"}
    for row in rows:
        assert row.status == OK
        assert row.perplexity is not None
        assert math.isfinite(row.perplexity)
        assert row.bits_per_byte is not None
        # The first token of each window is predicted from one that is put before it.
        assert row.n_tokens == N_WINDOWS * 64
        assert row.seconds >= 0
    assert {path.name for path in out.iterdir()} == {JSON_FILE, CSV_FILE}


def test_all_methods_remove_as_much(done: tuple[SweepJob, Path]) -> None:
    job, out = done
    report = PruningReport.load(out)
    n_dense = report.model["parameters"]
    assert n_dense == sum(p.numel() for p in job.loaded.model.parameters())
    for row in report.rows:
        if row.method == DENSE:
            assert (row.parameters, row.removed_share, row.sparsity) == (n_dense, 0.0, 0.0)
            continue
        # Gate, up and down of 40 neurons; a bias where one is put in.
        n_gone = N_LAYERS * round(40 * row.sparsity) * 3 * N_HIDDEN
        n_gone -= 0 if row.refit == "none" else N_LAYERS * N_HIDDEN
        # The same switch gives gate and up theirs.
        n_gone -= 0 if row.refit == "none" else N_LAYERS * 2 * (40 - round(40 * row.sparsity))
        assert row.parameters == n_dense - n_gone
        assert row.removed_share == pytest.approx(n_gone / n_dense)


def test_the_dense_row_is_the_model_s_own_score(done: tuple[SweepJob, Path]) -> None:
    job, out = done
    report = PruningReport.load(out)
    loaded = load_model(job.request.model, device="cpu", with_head=True)  # type: ignore[union-attr]
    context = find_context(loaded.model, loaded.tokenizer)
    for source in job.request.evaluations:  # type: ignore[union-attr]
        for windows, most in (("sample", N_WINDOWS), ("all", None)):
            found = score(
                loaded.model, prepare(source, loaded.tokenizer, context, max_windows=most)
            )
            (row,) = [
                r
                for r in report.rows
                if (r.method, r.evaluation, r.windows) == (DENSE, Path(source).name, windows)
            ]
            assert row.perplexity == pytest.approx(found.perplexity, rel=1e-6)
            assert row.n_tokens == found.n_tokens
            assert row.bits_per_byte == pytest.approx(found.bits_per_byte, rel=1e-6)


def test_a_row_is_the_score_of_the_checkpoint_that_prune_writes(
    request_of: Callable[[str], SweepRequest], tmp_path: Path
) -> None:
    """Of a checkpoint in bf16: what rounding the refitted weights costs is in the row."""
    folder = tmp_path / "half"
    loaded = load_model(request_of("qwen2").model, device="cpu", with_head=True)
    loaded.model.to(torch.bfloat16).save_pretrained(folder)  # type: ignore[operator]
    loaded.tokenizer.save_pretrained(folder)
    request = replace(
        request_of("qwen2"),
        model=str(folder),
        projection=None,
        settings=replace(
            SETTINGS, methods=("obs",), refits=("least-squares",), sparsities=(0.5,), n_seeds=1
        ),
    )
    report = run_sweep(prepare_sweep(request), tmp_path / "sweep")
    made = prune_model(
        str(folder),
        PruneSettings(
            method="obs",
            sparsity=0.5,
            refit="least-squares",
            n_sequences=SETTINGS.n_sequences,
            n_steps=SETTINGS.n_steps,
        ),
        tmp_path / "pruned",
        calibration=request.calibration,
        sequence_length=32,
        device="cpu",
    )
    saved = load_model(str(made.saved.folder), device="cpu", with_head=True)
    assert saved.stored_dtype == torch.bfloat16
    context = find_context(saved.model, saved.tokenizer)
    text = prepare(request.evaluations[0], saved.tokenizer, context, max_windows=N_WINDOWS)
    (row,) = [
        r
        for r in report.rows
        if (r.method, r.evaluation, r.windows) == ("obs", text.source, "sample")
    ]
    assert row.perplexity == pytest.approx(score(saved.model, text).perplexity, rel=1e-6)


def test_winners_are_scored_on_all_windows(done: tuple[SweepJob, Path]) -> None:
    job, out = done
    report = PruningReport.load(out)
    expected = {(DENSE, "none", 0.0, 0)}
    for text in job.samples:
        for winner in report.winners(text.source):
            expected |= {(winner.method, winner.refit, winner.sparsity, seed) for seed in (0, 1)}
    again = [row for row in report.rows if row.windows == "all"]
    for text in job.wholes:
        own = [row.combination for row in again if row.evaluation == text.source]
        assert set(own) == expected
        assert len(own) == len(expected)
        assert {row.n_tokens for row in again if row.evaluation == text.source} == {text.n_tokens}


def test_refits_do_what_they_are_for(done: tuple[SweepJob, Path]) -> None:
    """Rows are the models': seeds draw other text, and random ones other neurons."""
    _, out = done
    rows = {
        (*row.combination, row.evaluation): row.perplexity
        for row in PruningReport.load(out).rows
        if row.windows == "sample"
    }
    for method in METHODS:
        for sparsity in SPARSITIES:
            values = [rows[method, refit, sparsity, 0, "like.txt"] for refit in REFITS]
            # Stand-ins are a fit already: least squares may find none that does better.
            n_distinct = 3 if method == "poles" else 4
            assert len(set(values)) >= n_distinct, (method, sparsity, values)
            assert values[3] not in values[:3]
        assert (
            rows[method, "least-squares", 0.5, 0, "like.txt"]
            != (rows[method, "least-squares", 0.5, 1, "like.txt"])
        )
    assert (
        rows["magnitude", "none", 0.5, 0, "like.txt"]
        == (rows["magnitude", "none", 0.5, 1, "like.txt"])
    )


def test_resuming_gives_the_report_that_was_not_stopped(
    done: tuple[SweepJob, Path], tmp_path: Path
) -> None:
    job, _ = done
    job = small(job, methods=("random", "folding", "poles"), n_seeds=2, refits=("none", "bias"))
    run_sweep(job, tmp_path / "whole")
    whole = without_seconds(tmp_path / "whole")

    class Stop(Silent):
        stage, n = "", 0

        def begin(self, stage: str, total: int | None, unit: str) -> None:
            self.stage = stage

        def advance(self, n: int) -> None:
            # Not of the layers that models are made of.
            self.n += n if self.stage == "Sweeping" else 0
            if self.n >= 8:
                raise KeyboardInterrupt

    out = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        run_sweep(job, out, progress=Stop())
    stopped = PruningReport.load(out)
    assert 4 < len(stopped.rows) < len(json.loads(whole)["rows"])
    run_sweep(job, out, resume=True)
    assert without_seconds(out) == whole
    # Rows that are missing here and there, one of two refits too; and the winners'.
    report = PruningReport.load(out)
    gone = {("random", "bias", 0.5, 1), ("poles", "none", 0.25, 0), ("folding", "none", 0.5, 0)}
    report.rows = [
        row for row in report.rows if row.combination not in gone and row.windows == "sample"
    ]
    report.save(out)
    run_sweep(job, out, resume=True)
    assert without_seconds(out) == whole
    # Nothing is left to do, and nothing is done.
    before = (out / JSON_FILE).read_bytes(), (out / CSV_FILE).read_bytes()
    run_sweep(job, out, resume=True)
    assert before == ((out / JSON_FILE).read_bytes(), (out / CSV_FILE).read_bytes())


def test_a_sweep_that_was_stopped_makes_no_layer_twice(
    done: tuple[SweepJob, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, _ = done
    job = small(job, methods=("obs", "flap"), refits=("none", "least-squares"))
    made: list[int] = []
    make = LayerMaker._make

    def stopped(self: LayerMaker, walked: Any, shapes: Any) -> Any:
        if walked.index == 1 and not made.count(1):
            made.append(1)
            raise KeyboardInterrupt
        made.append(walked.index)
        return make(self, walked, shapes)

    monkeypatch.setattr(LayerMaker, "_make", stopped)
    out, layers = tmp_path / "out", tmp_path / "out.layers"
    with pytest.raises(KeyboardInterrupt):
        run_sweep(job, out)
    assert [path.name for path in (layers / "seed-0").iterdir()] == ["layer-00000.safetensors"]
    run_sweep(job, out, resume=True)
    # Both shares, methods and refits of a layer at once; the winners' too.
    assert made == [0, 1, 1]
    assert not layers.exists()
    run_sweep(job, tmp_path / "whole")
    assert without_seconds(out) == without_seconds(tmp_path / "whole")


def test_too_small_a_budget_or_disk_ends_a_sweep_before_it_begins(
    done: tuple[SweepJob, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, _ = done
    request = replace(job.request, memory_budget=1000)  # type: ignore[type-var]
    with refused("memory_budget", 1000):
        run_sweep(replace(job, request=request), tmp_path / "out")
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(1000, 0, 1000))
    with refused("out"):
        run_sweep(job, tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("with_winners", [False, True])
def test_layers_of_a_seed_that_is_done_are_removed(
    with_winners: bool,
    done: tuple[SweepJob, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job, _ = done
    job = small(
        job,
        methods=("poles", "folding"),
        refits=("none", "least-squares"),
        n_seeds=2,
        sparsities=(0.5,),
    )
    job = job if with_winners else replace(job, wholes=())
    asked: list[int | None] = []
    own = budget.within

    def within(needs: budget.Needs, given: int | None, **options: int) -> budget.Needs:
        asked.append(given)
        return own(needs, given, **options)

    monkeypatch.setattr(bench, "within", within)
    layers = tmp_path / "out.layers"
    told: list[budget.Needs] = []
    taken: list[int] = []
    there: dict[str, list[list[str]]] = {}

    class Watch(Silent):
        stage = ""

        def begin(self, stage: str, total: int | None, unit: str) -> None:
            self.stage = stage

        def advance(self, n: int) -> None:
            there.setdefault(self.stage, []).append(sorted(p.name for p in layers.iterdir()))
            files = [TensorFile(path) for path in layers.glob("*/layer*")]
            taken.append(sum(each.nbytes for file in files for each in file.values()))

    run_sweep(job, tmp_path / "out", progress=Watch(), tell=told.append)
    both = ["seed-0", "seed-1"]
    if with_winners:
        assert there["Sweeping"][-1] == both
        (last,) = (found for stage, found in there.items() if "winners" in stage)
        assert last[-1] == ["seed-1"]
    else:
        assert ["seed-0"] in there["Sweeping"]
        assert there["Sweeping"][-1] == ["seed-1"]
        assert both not in there["Sweeping"]
    (needs,) = told
    assert 0.7 * needs.disk < max(taken) <= needs.disk
    # Not again by each seed, when some of what is free is taken.
    assert asked == [None]
    assert not layers.exists()


def test_a_report_of_other_settings_is_not_gone_on_with(
    done: tuple[SweepJob, Path], tmp_path: Path
) -> None:
    job, _ = done
    quick = small(job, refits=("none",), methods=("random",))
    out = tmp_path / "out"
    run_sweep(quick, out)
    before = (out / JSON_FILE).read_bytes()
    text = quick.calibration
    others = {
        "sparsities": small(job, refits=("none",), methods=("random",), sparsities=(0.25,)),
        "methods": small(job, refits=("none",), methods=("magnitude",)),
        "n_steps": small(job, refits=("none",), methods=("random",), n_steps=4),
        "calibration": replace(quick, calibration=replace(text, source="another")),
        "evaluations": replace(quick, samples=quick.samples[:1]),
        "projection": replace(quick, origin=Origin("0" * 64)),
        "model sha256": replace(quick, loaded=replace(quick.loaded, weights_sha256="0" * 64)),
    }
    for name, other in others.items():
        with refused("resume", True, out, f" {name} "):
            run_sweep(other, out, resume=True)
        assert (out / JSON_FILE).read_bytes() == before


@dataclass(frozen=True)
class LaterRequest(SweepRequest):
    """A request of a later program, which knows one more setting."""

    temperature: float = 1.0
    # Another day the name may lead to other text.
    other_text: str = setting("a.txt", told_by="calibration")


def test_a_setting_that_is_new_tells_sweeps_apart_by_itself(
    done: tuple[SweepJob, Path], tmp_path: Path
) -> None:
    job, _ = done
    assert job.request is not None
    own = {each.name: getattr(job.request, each.name) for each in fields(SweepRequest)}
    quick = small(job, refits=("none",), methods=("random",), sparsities=(0.5,))
    later = replace(quick, request=LaterRequest(**own), wholes=())
    assert later.facts()["temperature"] == 1.0
    # Unless it says that two runs may differ in it, or what else tells of it.
    assert "with_winners" not in later.facts()
    assert "other_text" not in later.facts()
    told = {each.metadata.get(TOLD_BY) for each in fields(SweepRequest)} - {None, ""}
    assert told <= {*later.facts(), "model", "settings"}
    run_sweep(later, tmp_path / "out")
    other = replace(later, request=LaterRequest(**own, temperature=2.0))
    with refused("resume", True, "temperature", "1.0", "2.0"):
        run_sweep(other, tmp_path / "out", resume=True)
    assert set(asdict(quick.settings)) <= set(quick.facts())


def test_a_folder_in_use_is_refused(done: tuple[SweepJob, Path], tmp_path: Path) -> None:
    job, _ = done
    quick = small(job, refits=("none",), methods=("random",), sparsities=(0.5,))
    out = tmp_path / "out"
    first = run_sweep(quick, out)
    with refused("out", None, out, "resume=True", "force=True"):
        begin_report(quick, out, resume=False, force=False)
    assert begin_report(quick, out, resume=True, force=False) == first
    assert begin_report(quick, out, resume=False, force=True).rows == []
    used = tmp_path / "used"
    used.mkdir()
    assert begin_report(quick, used, resume=True, force=False).rows == []
    (used / "thesis.txt").write_text("mine")
    for resume, force in ((False, False), (True, False), (False, True)):
        with refused("out", None, used):
            begin_report(quick, used, resume=resume, force=force)
        with refused("out", str(used / "thesis.txt")):
            begin_report(quick, used / "thesis.txt", resume=resume, force=force)
    (used / JSON_FILE).write_text("{}")
    with refused_naming(used / JSON_FILE, "transformer-pruning-report"):
        begin_report(quick, used, resume=False, force=True)
    # Replaced: other settings are no hindrance.
    other = small(job, refits=("none",), methods=("magnitude",), sparsities=(0.25,))
    report = run_sweep(other, out, force=True)
    assert {row.method for row in report.rows} == {DENSE, "magnitude"}


def test_a_kill_in_the_first_save_hinders_no_sweep(
    done: tuple[SweepJob, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, _ = done
    quick = small(job, refits=("none",), methods=("random",), sparsities=(0.5,))
    for out, resume in ((tmp_path / "again", False), (tmp_path / "resumed", True)):
        out.mkdir()
        # As replacing files and locks name them.
        for name in (f".{JSON_FILE}.partial", ".lock"):
            (out / name).write_text("{")
        run_sweep(quick, out, resume=resume)
        assert {path.name for path in out.iterdir()} == {JSON_FILE, CSV_FILE}
    # A stranger's file beside them is one still.
    (used := tmp_path / "used").mkdir()
    for name in (f".{JSON_FILE}.partial", "thesis.txt"):
        (used / name).write_text("{")
    with refused("out", None, used):
        run_sweep(quick, used, resume=True)


def test_two_sweeps_do_not_work_in_one_folder(done: tuple[SweepJob, Path], tmp_path: Path) -> None:
    job, _ = done
    quick = small(job, refits=("none",), methods=("random",), sparsities=(0.5,))
    out = tmp_path / "above" / "out"
    refusals: list[str] = []

    class Second(Silent):
        """Another sweep begins while the first is at work."""

        def advance(self, n: int) -> None:
            if not refusals:
                for resume, force in ((True, False), (False, True)):
                    with refused_naming(out) as caught:
                        run_sweep(quick, out, resume=resume, force=force)
                    refusals.append(str(caught.value))

    report = run_sweep(quick, out, progress=Second())
    assert len(refusals) == 2
    assert PruningReport.load(out) == report
    assert {path.name for path in out.iterdir()} == {JSON_FILE, CSV_FILE}


@pytest.mark.parametrize("damage", [{"format_version": 99}, {"rows": 3}])
def test_a_report_that_can_not_be_read_is_replaced_with_its_figures(
    done: tuple[SweepJob, Path], tmp_path: Path, damage: dict[str, Any]
) -> None:
    job, _ = done
    quick = small(job, refits=("none",), methods=("random",), sparsities=(0.5,))
    out = tmp_path / "out"
    report = PruningReport(quick.facts(), quick.model_facts())
    report.save(out)
    for name in report.figure_names:
        (out / name).write_text("of the old one")
    (out / "mine.html").write_text("mine")
    values = json.loads((out / JSON_FILE).read_text(encoding="utf-8")) | damage
    (out / JSON_FILE).write_text(json.dumps(values))
    run_sweep(quick, out, force=True)
    assert {path.name for path in out.iterdir()} == {JSON_FILE, CSV_FILE, "mine.html"}


def test_what_can_not_be_is_a_row_with_the_reason(
    request_of: Callable[[str], SweepRequest], tmp_path: Path
) -> None:
    """No bias in Qwen2's MLPs."""
    settings = replace(SETTINGS, methods=("obs", "poles"), n_seeds=1, sparsities=(0.5,))
    request = replace(request_of("qwen2"), settings=settings, with_winners=False)
    report = run_sweep(prepare_sweep(request), tmp_path / "out")
    assert PruningReport.load(tmp_path / "out") == report
    for row in report.rows:
        if row.refit == "bias":
            assert (row.status, row.perplexity, row.n_tokens) == (NOT_APPLICABLE, None, 0)
            assert "Qwen2ForCausalLM" in row.reason
        else:
            assert (row.status, row.reason) == (OK, "")
            assert row.perplexity is not None
    assert len(report.rows) == 2 * (1 + 2 * 4)
    assert {row.windows for row in report.rows} == {"sample"}
    assert run_sweep(prepare_sweep(request), tmp_path / "out", resume=True) == report


def test_several_processes_give_the_same_rows(
    request_of: Callable[[str], SweepRequest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(
        SETTINGS, methods=("obs", "random"), refits=("none", "reconstruct"), n_seeds=1
    )
    job = prepare_sweep(replace(request_of("llama"), settings=settings))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    one = run_sweep(job, tmp_path / "one")
    two = run_sweep(job, tmp_path / "two", n_workers=2)
    assert one.settings == two.settings
    assert len(one.rows) == len(two.rows)
    for a, b in zip(one.rows, two.rows, strict=True):
        assert a.perplexity == pytest.approx(b.perplexity, rel=1e-6)
        assert _plain(a) == _plain(b)


def _plain(row: Row) -> dict[str, Any]:
    left_out = ("perplexity", "bits_per_byte", "seconds")
    return {k: v for k, v in asdict(row).items() if k not in left_out}


def test_what_stops_a_worker_is_said(
    request_of: Callable[[str], SweepRequest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(SETTINGS, methods=("random",), refits=("none",), n_seeds=1)
    job = prepare_sweep(replace(request_of("llama"), settings=settings))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    # As if it had gone since.
    gone = replace(job, request=replace(job.request, calibration="gone.txt"))  # type: ignore[type-var]
    with refused_naming("'gone.txt'", "hf:NAME"):
        run_sweep(gone, tmp_path / "out", n_workers=2)


def test_workers_are_refused_before_anything_is_written(
    done: tuple[SweepJob, Path], tmp_path: Path
) -> None:
    job, _ = done
    quick = small(job)
    with refused("n_workers", 0):
        run_sweep(quick, tmp_path / "out", n_workers=0)
    with refused("n_workers", 2):
        run_sweep(quick, tmp_path / "out", n_workers=2)
    assert not (tmp_path / "out").exists()


def test_too_little_text_is_refused_before_anything_is_written(
    done: tuple[SweepJob, Path], tmp_path: Path
) -> None:
    job, _ = done
    few = replace(job.calibration, corpus=replace(job.calibration.corpus, skip_first=24))
    job = replace(small(job, methods=("obs",), n_sequences=5), calibration=few)
    with refused("n_sequences", 5, "32 calibration tokens", "40 neurons", "n_sequences=6"):
        run_sweep(job, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    # As many as are said to be needed.
    run_sweep(
        replace(job, settings=replace(job.settings, n_sequences=6, sparsities=(0.5,)), wholes=()),
        tmp_path / "out",
    )
    # And methods that fit nothing need no more than there are.
    quick = small(job, methods=("magnitude",), n_sequences=5, sparsities=(0.5,))
    run_sweep(replace(quick, calibration=few, wholes=()), tmp_path / "magnitude")


def test_calibration_and_evaluation_share_nothing(
    request_of: Callable[[str], SweepRequest],
    texts: tuple[Path, Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    request = request_of("llama")
    with refused("calibration", request.calibration):
        replace(request, evaluations=(str(texts[1]), str(texts[0]))).check()
    # By another name, and among others.
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.txt").write_text(texts[0].read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "b.txt").write_text(texts[1].read_text(encoding="utf-8"), encoding="utf-8")
    with refused_naming("1 document of 2"):
        prepare_sweep(replace(request, evaluations=(str(folder),)))
    monkeypatch.chdir(texts[0].parent)
    # And what the projection has seen.
    with refused_naming(str(request.projection), "'own.txt'"):
        prepare_sweep(replace(request, evaluations=("own.txt",)))


def test_two_texts_of_one_name_are_refused(
    request_of: Callable[[str], SweepRequest], texts: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    other = tmp_path / texts[1].name
    other.write_text(make_text(300, 40), encoding="utf-8")
    for evaluations in ((str(texts[1]), str(other)), (str(texts[1]),) * 2):
        with refused_naming("like.txt, like.txt"):
            prepare_sweep(replace(request_of("llama"), evaluations=evaluations))


@pytest.mark.parametrize(
    ("changes", "value"),
    [
        ({"methods": ("magic",)}, "magic"),
        ({"refits": ("magic",)}, "magic"),
        ({"methods": ()}, None),
        ({"sparsities": ()}, None),
        ({"refits": ()}, None),
        ({"methods": ("obs", "obs")}, None),
        ({"sparsities": (0.2, 0.2)}, None),
        ({"sparsities": (0.0,)}, 0),
        ({"sparsities": (0.2, 1.0)}, 1.0),
        ({"sparsities": (-0.1,)}, -0.1),
        ({"sparsities": (math.nan,)}, math.nan),
        ({"n_seeds": 0}, 0),
        ({"n_steps": 0}, 0),
        ({"n_sequences": 4}, 4),
        ({"round_to": 0}, 0),
        ({"allocation": "fair"}, "fair"),
    ],
)
def test_settings_that_can_not_be(changes: dict[str, Any], value: object) -> None:
    (setting,) = changes
    with refused(setting, value):
        replace(SETTINGS, **changes)


def test_poles_need_a_projection(done: tuple[SweepJob, Path], tmp_path: Path) -> None:
    job, _ = done
    with refused("projection"):
        replace(job.request, projection=None).check()  # type: ignore[type-var]
    with refused("projection"):
        run_sweep(replace(job, proposals=None), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_broken_model_is_null_with_the_reason(
    done: tuple[SweepJob, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, _ = done
    make = bench.assembled

    def broken(*args: Any, **options: Any) -> Any:
        model: Any = make(*args, **options)
        # In memory of its own: what it has it shares with the dense one.
        model.lm_head.weight.data = torch.full_like(model.lm_head.weight, math.nan)
        return model

    monkeypatch.setattr(bench, "assembled", broken)
    quick = small(job, refits=("none",), methods=("random",))
    report = run_sweep(quick, tmp_path / "out")
    rows = [row for row in report.rows if row.method != DENSE]
    assert rows
    for row in rows:
        assert row.perplexity is row.bits_per_byte is None
        assert "3 of 3 windows" in row.reason
    assert report.winners("like.txt") == []
    assert "NaN" not in (tmp_path / "out" / JSON_FILE).read_text(encoding="utf-8")


def test_the_model_is_as_it_was(done: tuple[SweepJob, Path]) -> None:
    job, _ = done
    fresh = load_model(job.request.model, device="cpu", with_head=True)  # type: ignore[union-attr]
    theirs = fresh.model.state_dict()
    for name, tensor in job.loaded.model.state_dict().items():
        assert torch.equal(tensor, theirs[name])
