"""``pruning reuse``: what it prints and writes, how it goes on, and how it refuses."""

from __future__ import annotations

import csv
import html
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import transformers as hf
from typer.testing import CliRunner, Result

from pruning.reporting.files import CSV_FILE
from pruning.reuse.experiment import Experiment
from pruning.reuse.records import DENSE, MIXED, REUSE, ReuseRow
from pruning.reuse.report import load_reuse
from pruning.reuse.running import PAGE_FILE
from pruning.reuse.showing.words import answer
from pruning.sweep.report import PruningReport
from pruning.terminal.cli import app
from tests.conftest import make_text
from tests.pruning.test_preparing import fit

Checkpoint = Callable[[str], Path]


@pytest.fixture(scope="module", autouse=True)
def _quiet_and_wide() -> Iterator[None]:
    hf.utils.logging.disable_progress_bar()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "140")
        yield
    hf.utils.logging.enable_progress_bar()


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of made-up texts."""
    folder = tmp_path_factory.mktemp("texts")
    for name, n_words, seed in (("own", 900, 21), ("like", 250, 22)):
        (folder / f"{name}.txt").write_text(make_text(n_words, seed), encoding="utf-8")
    return folder


def command(model: Path, texts: Path, out: Path, **changes: object) -> list[str]:
    """The command with quick settings; None leaves an option out, True is a switch."""
    options: dict[str, object] = {
        "shares": "0.1,0.2",
        "seeds": 1,
        "calibration": texts / "own.txt",
        "evaluation": texts / "like.txt",
        "windows": 4,
        "sequences": 20,
        "sequence-length": 32,
        "device": "cpu",
        "out": out,
    }
    options |= {name.replace("_", "-"): value for name, value in changes.items()}
    given = ["reuse", str(model)]
    for name, value in options.items():
        if value is not None:
            given += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return given


def invoke(*args: str) -> Result:
    result = CliRunner().invoke(app, list(args))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def refuse(*args: str) -> dict[str, Any]:
    """What a command is refused with, as one JSON object; one line for a person."""
    result = invoke(*args, "--json")
    assert result.exit_code == 2, result.output
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def tree(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()} if folder.exists() else {}


def test_a_killed_experiment_goes_on_and_says_what_it_found(
    checkpoint: Checkpoint, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, out = checkpoint("qwen2"), tmp_path / "out"
    made: list[str] = []
    row = Experiment.row

    def counted(self: Experiment, key: Any, *given: Any) -> ReuseRow:
        if len(made) == 4:
            made.append("killed")
            raise KeyboardInterrupt
        found = row(self, key, *given)
        made.append(key.method)
        return found

    monkeypatch.setattr(Experiment, "row", counted)
    stopped = invoke(*command(model, texts, out))
    assert stopped.exit_code == 130
    assert "--resume" in stopped.stderr
    begun = load_reuse(out)
    # What was made is there, and where partners are found is kept.
    assert [each.method for each in begun.rows] == made[:4]
    assert begun.rows[0].method == DENSE
    kept = out.with_name("out.partners")
    assert kept.is_dir()

    result = invoke(*command(model, texts, out, resume=True))
    assert result.exit_code == 0, result.output
    assert "Resuming" in result.output
    assert "Gflop" in result.output
    whole = load_reuse(out)
    n_rows = 1 + 2 * 7
    assert len(whole.rows) == n_rows
    assert len(made) - 1 == n_rows
    assert not kept.exists()
    assert [each.nll_windows for each in whole.rows[:4]] == [r.nll_windows for r in begun.rows]
    assert {len(each.nll_windows) for each in whole.rows} == {4}
    methods = {row.method for row in whole.rows}
    assert {c.against for c in whole.comparisons} == methods - {DENSE, REUSE, MIXED}

    # An answer, made of the numbers, on the screen and on the page; tables of both.
    printed = " ".join(result.output.split())
    assert " ".join(answer(whole).split()) in printed
    for each in whole.comparisons:
        assert f"{each.difference:+.4f}".replace("-", "−") in result.output
    page = (out / PAGE_FILE).read_text(encoding="utf-8")
    assert html.escape(answer(whole), quote=False) in page
    assert page.count('class="figure"') == 2
    with (out / CSV_FILE).open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["method"] for line in lines] == [each.method for each in whole.rows]
    assert float(lines[1]["perplexity"]) == whole.rows[1].perplexity
    assert float(lines[1]["standard_error"]) > 0
    assert int(lines[1]["operations"]) == whole.rows[1].operations
    assert int(lines[1]["neurons_removed"]) == whole.rows[1].n_removed
    assert "removed" in result.output

    # Nothing is left to do, and no byte changes.
    before = tree(out)
    again = invoke(*command(model, texts, out, resume=True, json=True))
    assert again.exit_code == 0
    assert "finished" in again.stderr
    assert json.loads(again.stdout)["wins"] is whole.wins
    assert tree(out) == before
    # Other settings are told apart, by name.
    other = refuse(*command(model, texts, out, resume=True, sequences=21))
    assert (other["setting"], other["value"]) == ("resume", True)
    assert "--sequences" in other["error"]
    assert tree(out) == before
    # What a sweep made is not taken for it.
    PruningReport({}, {}, []).save(tmp_path / "sweep")
    assert refuse(*command(model, texts, tmp_path / "sweep", force=True))["setting"] == "out"


@pytest.mark.parametrize(
    ("changes", "setting", "value"),
    [
        ({"shares": "0.9"}, "shares", 0.9),
        ({"shares": "-0.1"}, "shares", -0.1),
        ({"shares": "nan"}, "shares", "nan"),
        ({"shares": "a"}, "shares", "a"),
        ({"shares": ""}, "shares", None),
        ({"shares": "0.1,0.1"}, "shares", None),
        ({"shares": "0"}, "shares", 0),
        ({"partners": 9}, "n_partners", 9),
        ({"windows": 0}, "n_windows", 0),
        ({"seeds": 0}, "n_seeds", 0),
        ({"evaluation": "own.txt"}, "calibration", "own.txt"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_loaded(
    changes: dict[str, object], setting: str | None, value: object, texts: Path, tmp_path: Path
) -> None:
    if "evaluation" in changes:
        changes, value = {"evaluation": texts / "own.txt"}, str(texts / "own.txt")
    out = tmp_path / "out"
    found = refuse(*command(tmp_path / "no model", texts, out, **changes))
    assert (found["setting"], found["value"]) == (setting, value)
    assert not out.exists()


def test_what_a_model_or_a_projection_lacks_is_one_line(
    checkpoint: Checkpoint, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    # MLPs that are not gated save half of a neuron at most; and the first layer has no earlier one.
    for family, share in (("gpt2", 0.3), ("qwen2", 0.4)):
        found = refuse(*command(checkpoint(family), texts, out, shares=share))
        assert (found["setting"], found["value"]) == ("shares", share)
    # No neurons of their own, and no perplexity.
    for family in ("mixtral", "bert"):
        refuse(*command(checkpoint(family), texts, out))
    tight = refuse(*command(checkpoint("qwen2"), texts, out, memory_budget="1kB"))
    assert (tight["setting"], tight["value"]) == ("memory_budget", 1000)
    # With as much as it says it does.
    needed = int(tight["expected"].split()[0])
    refuse(*command(checkpoint("qwen2"), texts, out, memory_budget=needed - 1))
    plain = fit(checkpoint("qwen2"), texts / "own.txt", tmp_path / "plain")
    lacking = refuse(*command(checkpoint("qwen2"), texts, out, projection=plain))
    assert (lacking["setting"], lacking["value"]) == ("cross_layer", False)
    assert "--cross-layer" in lacking["error"]
    with_partners = fit(
        checkpoint("qwen2"),
        texts / "own.txt",
        tmp_path / "partners",
        "--sites",
        "mlp_post",
        "--cross-layer",
    )
    options: dict[str, object] = {"projection": with_partners, "shares": "0.1"}
    refuse(*command(checkpoint("llama"), texts, out, **options))
    # Something else where activations would be kept.
    kept = out.with_name("out.partners")
    kept.mkdir()
    (kept / "mine.txt").write_text("mine")
    assert refuse(*command(checkpoint("qwen2"), texts, out))["setting"] == "out"
    (kept / "mine.txt").unlink()
    assert tree(out) == {}

    result = invoke(*command(checkpoint("qwen2"), texts, out, **options))
    assert result.exit_code == 0, result.output
    assert "Gflop" not in result.output
    # A disk that is full leaves the report as it was.
    before = tree(out)

    def full(*_: Any, **__: Any) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        stopped = invoke(*command(checkpoint("qwen2"), texts, out, force=True, **options))
    assert stopped.exit_code == 2
    line = stopped.stderr.splitlines()[-1]
    assert line.startswith("error: ")
    assert str(out) in line
    assert tree(out) == before
