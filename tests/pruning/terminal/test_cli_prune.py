"""``pruning prune`` and ``pruning sweep``: what they print and write, and how they refuse."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import transformers as hf
from click.testing import Result
from typer.testing import CliRunner

from pruning import saving
from pruning.layerwise.making import LayerMaker
from pruning.methods.plan import PLAN_FILE
from pruning.reporting.files import CSV_FILE, JSON_FILE
from pruning.sweep.report import DENSE, PruningReport
from pruning.terminal.cli import app
from tests.conftest import make_text
from tests.families import build
from tests.pruning.test_preparing import fit
from tests.refused import lacking

Checkpoint = Callable[[str], Path]


@pytest.fixture(scope="module", autouse=True)
def _quiet_and_wide() -> Iterator[None]:
    hf.utils.logging.disable_progress_bar()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "100")
        yield
    hf.utils.logging.enable_progress_bar()


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not loaded again in a fresh process, which takes seconds: one test does."""
    monkeypatch.setattr(saving, "_compare", lambda *args, **options: (0.0, False))


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of made-up texts."""
    folder = tmp_path_factory.mktemp("texts")
    for name, n_words, seed in (
        ("own", 1200, 21),
        ("like", 250, 22),
        ("unlike", 240, 23),
        ("short", 9, 24),
    ):
        (folder / f"{name}.txt").write_text(make_text(n_words, seed), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def projection(
    tmp_path_factory: pytest.TempPathFactory, checkpoint: Checkpoint, texts: Path
) -> Path:
    return fit(checkpoint("qwen2"), texts / "own.txt", tmp_path_factory.mktemp("map") / "out")


def invoke(*args: object) -> Result:
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    # What is no exit is a traceback to the user.
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def succeed(*args: object) -> Result:
    result = invoke(*args)
    assert result.exit_code == 0, result.output
    return result


def refuse(*args: object) -> str:
    """The one line on standard error that a command is refused with, exit code 2."""
    result = invoke(*args)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    return lines[0]


def tree(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


class Commands:
    """The two commands with quick settings; an option that is given again takes its place."""

    def __init__(self, checkpoint: Checkpoint, texts: Path, projection: Path) -> None:
        self._checkpoint, self._texts, self._projection = checkpoint, texts, projection

    def prune(self, out: Path, family: str = "qwen2", **changes: object) -> list[object]:
        options: dict[str, object] = {
            "method": "poles",
            "projection": self._projection,
            "calibration": self._texts / "own.txt",
            "sequences": 20,
            "sequence-length": 32,
            "steps": 3,
            "out": out,
            "device": "cpu",
        }
        return ["prune", self._checkpoint(family), *self._flags(options | self._named(changes))]

    def sweep(self, out: Path, family: str = "qwen2", **changes: object) -> list[object]:
        options: dict[str, object] = {
            "methods": "poles,random",
            "refits": "none,bias",
            "sparsities": "0.25,0.5",
            "seeds": 2,
            "projection": self._projection,
            "calibration": self._texts / "own.txt",
            "evaluation": self._texts / "like.txt",
            "windows": 3,
            "sequences": 20,
            "sequence-length": 32,
            "steps": 3,
            "out": out,
            "device": "cpu",
        }
        return ["sweep", self._checkpoint(family), *self._flags(options | self._named(changes))]

    def _named(self, changes: dict[str, object]) -> dict[str, object]:
        return {name.replace("_", "-"): value for name, value in changes.items()}

    def _flags(self, options: dict[str, object]) -> list[object]:
        # None leaves an option out, True is a switch.
        flags: list[object] = []
        for name, value in options.items():
            if value is not None:
                flags += [f"--{name}"] if value is True else [f"--{name}", value]
        return flags


@pytest.fixture(scope="module")
def commands(checkpoint: Checkpoint, texts: Path, projection: Path) -> Commands:
    return Commands(checkpoint, texts, projection)


# What they do


def test_prune_writes_a_checkpoint_that_a_fresh_process_has_loaded(
    commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[Any] = []
    run = subprocess.run

    def watched(*args: Any, **options: Any) -> Any:
        runs.append(run(*args, **options))
        return runs[-1]

    monkeypatch.setattr(saving.subprocess, "run", watched)
    out = tmp_path / "pruned"
    result = succeed(*commands.prune(out))
    assert [done.returncode for done in runs] == [0]
    text = " ".join(result.output.split())
    assert "MLPs of 28 neurons" in text
    assert "fewer" in text
    assert f"Wrote {out}" in text
    assert f"Next: pruning bench {commands._checkpoint('qwen2')} {out}" in text
    names = {path.name for path in out.iterdir()}
    assert {PLAN_FILE, "config.json", "model.safetensors", "tokenizer.json"} <= names
    assert [path.name for path in tmp_path.iterdir()] == ["pruned"]
    loaded = hf.AutoModelForCausalLM.from_pretrained(out)
    assert loaded.config.intermediate_size == 28
    assert hf.AutoTokenizer.from_pretrained(out)("kalo").input_ids


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("method", ["random", "wanda", "folding", "obs"])
def test_prune_as_json_is_one_object(method: str, commands: Commands, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    options = {"method": method, "projection": None, "sparsity": 0.5, "refit": "least-squares"}
    result = succeed(*commands.prune(out, **options, json=True))
    assert result.stdout.count("\n") == 1
    value = json.loads(result.stdout)
    assert value["model"] == str(out)
    assert (value["method"], value["refit"], value["sparsity"]) == (method, "least-squares", 0.5)
    assert value["widths"] == [20, 20]
    assert value["parameters"] < value["parameters_before"]
    assert json.loads((out / PLAN_FILE).read_text(encoding="utf-8"))["plan"]["method"] == method


@pytest.mark.usefixtures("here")
def test_prune_again_takes_force(commands: Commands, tmp_path: Path) -> None:
    out = tmp_path / "out"
    order = {"method": "random", "projection": None, "refit": "none"}
    succeed(*commands.prune(out, **order))
    before = tree(tmp_path)
    assert "--force" in refuse(*commands.prune(out, **order))
    assert tree(tmp_path) == before
    succeed(*commands.prune(out, **order, sparsity=0.5, force=True))
    assert hf.AutoConfig.from_pretrained(out).intermediate_size == 20


@pytest.mark.usefixtures("here")
def test_a_stopped_prune_goes_on(
    commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, layers = tmp_path / "out", tmp_path / "out.layers"
    order = {"method": "obs", "projection": None, "refit": "least-squares"}
    make = LayerMaker._make

    def stopped(self: LayerMaker, walked: Any, shapes: Any) -> Any:
        if walked.index == 1:
            raise KeyboardInterrupt
        return make(self, walked, shapes)

    with monkeypatch.context() as patch:
        patch.setattr(LayerMaker, "_make", stopped)
        result = invoke(*commands.prune(out, **order))
    assert result.exit_code == 130
    assert "Needs about" in result.output
    assert re.search(r"\d [kM]?B", result.output)
    assert [path.name for path in layers.iterdir()] == ["layer-00000.safetensors"]
    before = tree(tmp_path)
    assert "--resume" in refuse(*commands.prune(out, **order))
    told = refuse(*commands.prune(out, **order, resume=True, sequences=21))
    assert lacking(told, "--sequences", "20", "21") == []
    assert tree(tmp_path) == before
    result = succeed(*commands.prune(out, **order, resume=True))
    assert "Resuming" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    # As if it had never been stopped.
    succeed(*commands.prune(tmp_path / "whole", **order))
    assert tree(out) == tree(tmp_path / "whole")
    # Resumed once more, there is nothing to do.
    files = tree(out)
    again = " ".join(succeed(*commands.prune(out, **order, resume=True)).output.split())
    assert lacking(again, out, "finished") == []
    value = json.loads(succeed(*commands.prune(out, **order, resume=True, json=True)).stdout)
    assert value["widths"] == [28, 28]
    # Nothing was compared again.
    assert not {"greatest_difference", "tokenizer_differs"} & set(value)
    told = refuse(*commands.prune(out, **order, resume=True, sparsity=0.5))
    assert lacking(told, "--sparsity", "0.3", "0.5") == []
    assert tree(out) == files
    succeed(*commands.prune(out, **order, resume=True, force=True, sparsity=0.5))
    assert hf.AutoConfig.from_pretrained(out).intermediate_size == 20


def test_a_budget_that_is_too_small_for_one_layer(commands: Commands, tmp_path: Path) -> None:
    order = {"method": "obs", "projection": None, "refit": "least-squares"}
    told = refuse(*commands.prune(tmp_path / "out", **order, memory_budget="100kB"))
    assert lacking(told, "layer 0", "40 neurons", "100 kB", "--memory-budget") == []
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("here")
def test_names_are_no_markup(
    commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = Path("out[red]x[/red][/b]")
    result = succeed(*commands.prune(out, method="random", projection=None, refit="none"))
    assert result.output.count("out[red]x[/red][/b]") == 2


def test_a_sweep_writes_a_report_and_its_figure(commands: Commands, tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    result = succeed(*commands.sweep(out))
    text = result.output
    assert {path.name for path in out.iterdir()} == {JSON_FILE, CSV_FILE, "report.html"}
    report = PruningReport.load(out)
    # Dense, and two methods, two refits, two sparsities, two seeds.
    assert len([row for row in report.rows if row.windows == "sample"]) == 1 + 16
    assert any(row.windows == "all" for row in report.rows)
    lines = [line.split() for line in text.splitlines()]
    assert ["method", "refit", "25%", "50%"] in lines
    for summary in report.summaries():
        if summary.method != DENSE:
            cell = f"{summary.perplexity:.3f} ± {summary.spread:.3f}"
            assert any(
                f"{summary.method} {summary.refit}" in " ".join(line.split()) and cell in line
                for line in text.splitlines()
            )
    # No bias in Qwen2's MLPs.
    assert ["poles", "bias", "–", "–"] in lines
    assert "like.txt" in text
    assert "windows of 64 tokens" in text
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "poles, none" in page
    assert "<script src" not in page
    # Resumed, there is nothing to do.
    assert "--resume" in refuse(*commands.sweep(out))
    files = tree(out)
    again = " ".join(succeed(*commands.sweep(out, resume=True)).output.split())
    assert lacking(again, out, "finished", "report.html") == []
    assert tree(out) == files
    told = refuse(*commands.sweep(out, resume=True, steps=4))
    assert lacking(told, "--steps", "3", "4") == []
    assert tree(out) == files
    # A queue's one command line starts it too; with --force, what another sweep left is replaced.
    order = {"resume": True, "force": True, "seeds": 1, "sparsities": "0.5"}
    again = " ".join(succeed(*commands.sweep(out, **order, steps=4)).output.split())
    assert "finished" not in again
    assert PruningReport.load(out).settings["n_steps"] == 4
    files = tree(out)
    succeed(*commands.sweep(out, **order, steps=4))
    assert tree(out) == files


def test_a_sweep_as_json_is_one_object(commands: Commands, texts: Path, tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    order = {"seeds": 1, "sparsities": "0.5", "methods": "random", "projection": None}
    evaluation = f"{texts / 'like.txt'}, {texts / 'unlike.txt'}"
    result = succeed(*commands.sweep(out, **order, evaluation=evaluation, json=True))
    assert result.stdout.count("\n") == 1
    value = json.loads(result.stdout)
    assert value["report"] == str(out / JSON_FILE)
    assert [Path(path).name for path in value["figures"]] == ["report-0.html", "report-1.html"]
    assert all(Path(path).exists() for path in value["figures"])
    found = {(s["method"], s["refit"], s["evaluation"], s["windows"]) for s in value["summaries"]}
    assert ("random", "none", "like.txt", "sample") in found
    assert (DENSE, "none", "unlike.txt", "all") in found


def test_a_sweep_that_replaces_a_report_removes_its_figures_and_no_other_file(
    commands: Commands, texts: Path, tmp_path: Path
) -> None:
    out = tmp_path / "sweep"
    order = {"seeds": 1, "sparsities": "0.5", "methods": "random", "projection": None}
    order |= {"refits": "none"}
    succeed(
        *commands.sweep(out, **order, evaluation=f"{texts / 'like.txt'}, {texts / 'unlike.txt'}")
    )
    (out / "report-final.html").write_text("mine")
    succeed(*commands.sweep(out, **order, force=True))
    names = {path.name for path in out.iterdir()}
    assert names == {JSON_FILE, CSV_FILE, "report.html", "report-final.html"}
    assert (out / "report-final.html").read_text() == "mine"
    # A figure that is missing is drawn, though the sweep is finished.
    (out / "report.html").unlink()
    succeed(*commands.sweep(out, **order, resume=True))
    assert (out / "report.html").exists()


@pytest.mark.parametrize("version", [0, 99])
def test_force_replaces_a_report_of_another_version(
    version: int, commands: Commands, tmp_path: Path
) -> None:
    out = tmp_path / "sweep"
    order = {"seeds": 1, "sparsities": "0.5", "methods": "random", "projection": None}
    order |= {"refits": "none"}
    out.mkdir()
    content = {"format": "transformer-pruning-report", "format_version": version}
    (out / JSON_FILE).write_text(json.dumps(content))
    before = tree(out)
    assert "--force" in refuse(*commands.sweep(out, **order))
    assert f"format version {version}" in refuse(*commands.sweep(out, **order, resume=True))
    assert tree(out) == before
    succeed(*commands.sweep(out, **order, force=True))
    assert PruningReport.load(out).rows


def test_without_winners_all_windows_are_not_scored(commands: Commands, tmp_path: Path) -> None:
    order = {"seeds": 1, "sparsities": "0.5", "methods": "random", "projection": None}
    arguments = [*commands.sweep(tmp_path / "out", **order, refits="none"), "--no-winners"]
    succeed(*arguments)
    assert {row.windows for row in PruningReport.load(tmp_path / "out").rows} == {"sample"}


# How they refuse


@pytest.mark.parametrize(
    ("family", "changes", "names"),
    [
        ("llama", {}, ("projection '", "'llama'", "`projector fit`")),
        ("mixtral", {}, ("layer 0", "4 experts")),
        ("bloom", {}, ("BloomForCausalLM", "config")),
        ("qwen2", {"sparsity": -0.1}, ("--sparsity -0.1",)),
        ("qwen2", {"sparsity": 1}, ("--sparsity 1",)),
        ("qwen2", {"sparsity": "nan"}, ("--sparsity nan",)),
        (
            "qwen2",
            {"method": "magic"},
            ("--method 'magic'", "random, magnitude"),
        ),
        ("qwen2", {"refit": "magic"}, ("--refit 'magic'", "none, bias")),
        ("qwen2", {"refit": "bias"}, ("Qwen2ForCausalLM", "--refit")),
        ("qwen2", {"projection": None}, ("poles", "--projection")),
        ("qwen2", {"projection": "nowhere"}, ("'nowhere'", "`projector fit`")),
        ("qwen2", {"calibration": None}, ("--calibration SOURCE",)),
        ("qwen2", {"calibration": "nowhere.txt"}, ("'nowhere.txt'", "hf:NAME")),
        (
            "qwen2",
            {"sequences": 5, "sequence-length": 8},
            ("32 calibration tokens", "40 neurons", "--sequences 6"),
        ),
        ("qwen2", {"sequences": 4}, ("--sequences 4", "5")),
        ("qwen2", {"sequences": 100_000}, ("own.txt", "--sequences")),
        (
            "qwen2",
            {"sequence-length": 65},
            ("--sequence-length 65", "2 to 64"),
        ),
        ("qwen2", {"steps": 0}, ("--steps 0",)),
        ("qwen2", {"round-to": 0}, ("--round-to 0",)),
        ("qwen2", {"allocation": "global"}, ("Qwen2ForCausalLM", "--allocation uniform")),
        ("qwen2", {"device": "abacus"}, ("--device 'abacus'",)),
        ("qwen2", {"space": "moon"}, ("--space 'moon'", "positions, correlation")),
        ("qwen2", {"min-cluster-size": 1}, ("--min-cluster-size 1",)),
        ("qwen2", {"round-to": 64}, ("--round-to 64", "40 neurons")),
        ("qwen2", {"seed": 5_000_000_000}, ("--seed 5,000,000,000",)),
        (
            "qwen2",
            {"method": "folding", "allocation": "global"},
            ("folding", "--allocation uniform"),
        ),
    ],
)
def test_prune_refuses_in_one_line_and_writes_nothing(
    family: str,
    changes: dict[str, object],
    names: tuple[str, ...],
    commands: Commands,
    tmp_path: Path,
) -> None:
    line = refuse(*commands.prune(tmp_path / "out", family, **changes))
    assert lacking(line, *names) == []
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(
    ("family", "changes", "names"),
    [
        ("llama", {}, ("projection '", "'llama'", "`projector fit`")),
        ("mixtral", {}, ("layer 0", "4 experts")),
        ("bloom", {}, ("BloomForCausalLM", "config")),
        ("bert", {"methods": "random", "projection": None}, ("BertForMaskedLM",)),
        ("qwen2", {"sparsities": "0.2,1"}, ("--sparsities 1",)),
        ("qwen2", {"sparsities": "-0.1"}, ("--sparsities -0.1",)),
        ("qwen2", {"sparsities": "nan"}, ("--sparsities nan",)),
        ("qwen2", {"sparsities": "0"}, ("--sparsities 0",)),
        ("qwen2", {"sparsities": "a third"}, ("--sparsities 'a third'",)),
        ("qwen2", {"sparsities": ","}, ("--sparsities", "empty")),
        ("qwen2", {"methods": ","}, ("--methods", "empty")),
        ("qwen2", {"refits": " ,"}, ("--refits", "empty")),
        ("qwen2", {"sparsities": "0.2,0.20"}, ("--sparsities", "repeats")),
        ("qwen2", {"methods": "poles,magic"}, ("--methods 'magic'",)),
        ("qwen2", {"refits": "none,magic"}, ("--refits 'magic'",)),
        ("qwen2", {"methods": "obs,obs"}, ("--methods", "repeats")),
        ("qwen2", {"seeds": 0}, ("--seeds 0", "1")),
        ("qwen2", {"windows": 0}, ("--windows 0",)),
        ("qwen2", {"projection": None}, ("poles", "--projection")),
        ("qwen2", {"calibration": None}, ("--calibration SOURCE",)),
        ("qwen2", {"evaluation": None}, ("--evaluation SOURCE",)),
        ("qwen2", {"evaluation": ","}, ("--evaluation", "empty")),
        ("qwen2", {"evaluation": "nowhere.txt"}, ("'nowhere.txt'", "hf:NAME")),
        ("qwen2", {"evaluation": "short.txt"}, ("short.txt", "64")),
        ("qwen2", {"evaluation": "own.txt"}, ("calibration", "evaluation", "'own.txt'")),
        ("qwen2", {"evaluation": "./own.txt"}, ("projection '", "own.txt'")),
        (
            "qwen2",
            {"evaluation": "./own.txt", "methods": "obs", "projection": None},
            ("1 document of 1",),
        ),
        ("qwen2", {"workers": 0}, ("--workers 0",)),
        ("qwen2", {"sequences": 5, "sequence-length": 8}, ("40 neurons", "--sequences 6")),
    ],
)
def test_a_sweep_refuses_in_one_line_and_writes_nothing(
    family: str,
    changes: dict[str, object],
    names: tuple[str, ...],
    commands: Commands,
    texts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(texts)
    order = {"calibration": "own.txt", "refits": "none,least-squares"} | changes
    line = refuse(*commands.sweep(tmp_path / "out", family, **order))
    assert lacking(line, *names) == []
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("command", ["prune", "sweep"])
def test_a_folder_in_use_is_left_alone(command: str, commands: Commands, tmp_path: Path) -> None:
    used = tmp_path / "used"
    used.mkdir()
    (used / "thesis.txt").write_text("mine")
    before = tree(tmp_path)
    make = getattr(commands, command)
    for force in (None, True):
        assert str(used) in refuse(*make(used, force=force))
        assert str(used / "thesis.txt") in refuse(*make(used / "thesis.txt", force=force))
    assert tree(tmp_path) == before


@pytest.mark.parametrize("command", ["prune", "sweep"])
def test_a_refusal_as_json_is_one_object_too(
    command: str, commands: Commands, tmp_path: Path
) -> None:
    order = getattr(commands, command)(tmp_path / "out", projection=None, json=True)
    result = invoke(*order)
    assert result.exit_code == 2
    assert "--projection" in json.loads(result.stdout)["error"]
    assert tree(tmp_path) == {}


def test_a_reload_that_fails_is_one_line(
    commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(arguments: list[str], **options: Any) -> Any:
        return subprocess.CompletedProcess(arguments, 1, "", "Traceback\nValueError: no such type")

    monkeypatch.setattr(saving.subprocess, "run", broken)
    order = commands.prune(tmp_path / "out", method="random", projection=None, refit="none")
    assert "ValueError: no such type" in refuse(*order)
    # Nothing but the layers, which are made.
    assert [path.name for path in tmp_path.iterdir()] == ["out.layers"]


def test_a_model_without_a_tokenizer_is_refused(commands: Commands, tmp_path: Path) -> None:
    build("llama").save_pretrained(tmp_path / "bare")
    before = tree(tmp_path)
    order = commands.prune(tmp_path / "out", method="random", projection=None)
    order[1] = tmp_path / "bare"
    assert "tokenizer" in refuse(*order)
    assert tree(tmp_path) == before
