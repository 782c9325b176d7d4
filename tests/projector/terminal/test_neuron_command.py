"""``projector neuron``: tables for a person, one JSON object, a report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from typer.testing import CliRunner, Result

import projector
from projector.terminal.cli import app


def invoke(*args: object) -> Result:
    return CliRunner().invoke(app, ["neuron", *map(str, args)])


def test_a_neuron_is_told_and_written(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    model, out = checkpoint("qwen2"), tmp_path / "report"
    args = (model, "--layer", 0, "--neuron", 7, "--top", 4, "--heads")
    result = invoke(*args, "--out", out)
    assert result.exit_code == 0, result.output
    for words in ("L0 N7", "gate reads", "up reads", "output raises", "read by"):
        assert words in result.stdout
    content = json.loads((out / "report.json").read_text())
    assert {each["part"] for each in content["heads"]["strongest"]} <= {"query", "key", "value"}
    assert [len(each["most"]) for each in content["reads"]] == [4, 4]
    assert (out / "report.html").read_text().count("Plotly.newPlot(") >= 4
    assert json.loads(invoke(*args, "--json").stdout) == content
    found = projector.neuron(str(model), 0, 7, n_top=4, heads=True).as_dict()
    assert json.loads(json.dumps(found)).items() <= content.items()


def test_of_an_encoder_tokens_that_it_writes_are_left_out(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    args = (checkpoint("bert"), "--layer", 1, "--neuron", 0, "--out", tmp_path / "report")
    result = invoke(*args)
    assert result.exit_code == 0, result.output
    assert "input reads" in result.stdout
    assert "without" in result.stdout


def test_what_is_not_there_is_one_line(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    model = checkpoint("qwen2")
    for args, setting in (
        ((model, "--layer", 2, "--neuron", 0), "layer"),
        ((model, "--layer", 0, "--neuron", 40), "neuron"),
        ((model, "--layer", 0, "--neuron", 0, "--top", 0), "n_top"),
        ((checkpoint("mixtral"), "--layer", 0, "--neuron", 0), "layer"),
    ):
        result = invoke(*args)
        assert result.exit_code == 2, args
        assert "Traceback" not in result.output
        assert json.loads(invoke(*args, "--json").stdout)["setting"] == setting
