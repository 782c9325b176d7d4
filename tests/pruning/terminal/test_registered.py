"""A method and a refit that a test registers: every command knows them without another line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from click.testing import CliRunner as CommandRunner
from typer.main import get_command
from typer.testing import CliRunner

from projector.errors import UserError
from pruning import preparing, saving
from pruning.methods.method import Layer, Method
from pruning.methods.registry import METHODS, register
from pruning.preparing import UsualTexts
from pruning.refit.products import Products
from pruning.refit.record import Fit, Refit
from pruning.refit.registry import REFITS
from pruning.refit.registry import register as register_refit
from pruning.sweep.figure import report_figure
from pruning.sweep.report import DENSE, OK, PruningReport
from pruning.sweep.settings import SweepSettings
from pruning.terminal.cli import app
from pruning.terminal.options import calibration_of
from tests.conftest import make_text
from tests.families import N_LAYERS, N_NEURONS
from tests.refused import refused

Checkpoint = Callable[[str], Path]
# The first neurons go first.
FIRST = Method(
    name="first-come",
    help="the first by number",
    scores=lambda layer: torch.arange(layer.n_neurons, dtype=torch.float64),
)


def _halved(given: Fit) -> tuple[torch.Tensor, None]:
    assert isinstance(given.fit, Products)
    return given.start / 2, None


HALF = Refit(name="half", help="they write half of it", output=_halved)


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    hf.utils.logging.disable_progress_bar()
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(saving, "_compare", lambda *args, **options: (0.0, False))
    register(FIRST)
    register_refit(HALF)
    yield
    del METHODS[FIRST.name], REFITS[HALF.name]
    hf.utils.logging.enable_progress_bar()


@pytest.fixture
def texts(tmp_path: Path) -> tuple[Path, Path]:
    paths = tmp_path / "own.txt", tmp_path / "like.txt"
    for path, n_words, seed in zip(paths, (1200, 250), (21, 22), strict=True):
        path.write_text(make_text(n_words, seed), encoding="utf-8")
    return paths


def run(*arguments: object) -> Any:
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    assert result.exit_code == 0, result.output
    return result


def test_help_tells_what_they_do() -> None:
    shown = " ".join(run("prune", "--help").output.replace("│", " ").split())
    assert f"first-come: {FIRST.help}" in shown
    assert f"half: {HALF.help}" in shown
    shown = " ".join(run("sweep", "--help").output.replace("│", " ").split())
    assert "obs, first-come;" in shown
    assert "reconstruct, half." in shown


def test_help_of_a_command_that_is_used_again_tells_what_is_registered_by_then() -> None:
    command = get_command(app)
    shown = CommandRunner().invoke(command, ["prune", "--help"]).output
    assert "first-come" in shown
    del METHODS[FIRST.name]
    try:
        shown = CommandRunner().invoke(command, ["prune", "--help"]).output
        assert "magnitude" in shown
        assert "first-come" not in shown
    finally:
        register(FIRST)


def test_help_names_the_usual_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "BUNDLED_TEXTS", UsualTexts("here.txt", "there.txt"))
    assert calibration_of(None, "bundled") == "here.txt"
    assert calibration_of("mine.txt", "bundled") == "mine.txt"
    with refused("calibration", None):
        calibration_of(None, "other")
    shown = " ".join(run("sweep", "--help").output.replace("│", " ").split())
    assert "here.txt." in shown
    assert "there.txt." in shown


def test_prune_plans_and_refits_with_them(
    checkpoint: Checkpoint, texts: tuple[Path, Path], tmp_path: Path
) -> None:
    options = ("--calibration", texts[0], "--sequences", 20, "--sequence-length", 32)
    given = ("--method", "first-come", "--refit", "half", "--sparsity", 0.5, "--device", "cpu")
    run("prune", checkpoint("qwen2"), "--out", tmp_path / "out", *options, *given)
    plan = saving.load_plan(tmp_path / "out")
    kept = tuple(range(N_NEURONS // 2, N_NEURONS))
    assert [layer.kept for layer in plan.layers] == [kept] * N_LAYERS
    dense, pruned = (
        hf.AutoModelForCausalLM.from_pretrained(path).model.layers[0].mlp.down_proj.weight
        for path in (checkpoint("qwen2"), tmp_path / "out")
    )
    torch.testing.assert_close(pruned, dense[:, N_NEURONS // 2 :] / 2)


def test_a_sweep_has_rows_and_lines_of_them(
    checkpoint: Checkpoint, texts: tuple[Path, Path], tmp_path: Path
) -> None:
    assert SweepSettings().methods[-1] == "first-come"
    assert SweepSettings().refits[-1] == "half"
    options = ("--calibration", texts[0], "--sequences", 20, "--sequence-length", 32)
    given = ("--methods", "first-come", "--refits", "none,half", "--sparsities", 0.5)
    scored = ("--evaluation", texts[1], "--windows", 2, "--seeds", 1, "--device", "cpu", "--json")
    result = run("sweep", checkpoint("qwen2"), "--out", tmp_path / "out", *options, *given, *scored)
    assert json.loads(result.stdout)["report"] == str(tmp_path / "out" / "report.json")
    report = PruningReport.load(tmp_path / "out")
    pruned = [row for row in report.rows if row.method != DENSE and row.windows == "sample"]
    assert [(row.method, row.refit, row.status) for row in pruned] == [
        ("first-come", "none", OK),
        ("first-come", "half", OK),
    ]
    lines = {trace.name: trace.line.dash for trace in report_figure(report).data}
    assert lines == {"first-come, none": "dot", "first-come, half": HALF.dash}


def test_a_record_says_what_it_needs() -> None:
    with pytest.raises(ValueError, match="'first-come'"):
        register(FIRST)
    with pytest.raises(ValueError, match=r"\bscores\b.*\bplan\b"):
        Method("both", "", scores=FIRST.scores, plan=lambda layer, n: None)  # type: ignore[arg-type,return-value]
    with pytest.raises(ValueError, match="reads"):
        replace(FIRST, reads=("the stars",))
    METHODS["first-come"] = replace(FIRST, reads=("projection", "regular moments"))
    settings = SweepSettings(methods=("first-come",), refits=("none",))
    assert settings.reads_projection
    assert settings.needs_regular_moments
    assert not replace(FIRST, scores=None, plan=lambda layer, n: None).allocates  # type: ignore[arg-type,return-value]
    assert replace(FIRST, costs=Layer.rising_costs).allocates


def test_a_method_that_reads_a_projection_asks_for_one(
    checkpoint: Checkpoint, texts: tuple[Path, Path], tmp_path: Path
) -> None:
    METHODS["first-come"] = replace(FIRST, reads=("projection",))
    from pruning.pruning import prune_model
    from pruning.settings import PruneSettings

    with refused("projection") as caught:
        prune_model(
            str(checkpoint("qwen2")),
            PruneSettings(method="first-come"),
            tmp_path / "out",
            calibration=str(texts[0]),
        )
    assert isinstance(caught.value, UserError)
    assert "first-come" in str(caught.value)
