"""``projector stream``: tables for a person, one JSON object, a report that needs no network."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

import projector
from projector.terminal.cli import app
from projector.terminal.residual.stream import _layers


def invoke(*args: object) -> Result:
    return CliRunner().invoke(app, ["stream", *map(str, args)])


@pytest.fixture(scope="module")
def model(checkpoint: Callable[[str], Path]) -> Path:
    return checkpoint("gpt2")


def test_a_corpus_is_told_and_written(model: Path, text_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    args = (model, "--corpus", text_file, "--max-tokens", 300, "--out", out)
    result = invoke(*args)
    assert result.exit_code == 0, result.output
    for words in ("attention-free path", "layers", "relative error", "position"):
        assert words in result.stdout
    content = json.loads((out / "report.json").read_text())
    assert content["flow"]["n_tokens"] == 300
    assert [row["layer"] for row in content["flow"]["rows"]] == [0, 1]
    names = [path["name"] for path in content["zero_layer"]["paths"]]
    assert names == ["direct", "attention-free", "unigram", "bigram"]
    page = (out / "report.html").read_text()
    assert page.count("Plotly.newPlot(") >= 4
    assert not re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="http', page)
    # What is there is replaced only on request, and then by the same.
    assert invoke(*args).exit_code == 2
    assert invoke(*args, "--force").exit_code == 0
    assert json.loads((out / "report.json").read_text()) == content
    printed = json.loads(invoke(*args[:-2], "--json").stdout)
    assert printed == content
    found = projector.stream(str(model), corpus=str(text_file), max_tokens=300)
    assert json.loads(json.dumps(found.as_dict())) == content


def test_a_prompt_is_told_and_its_text_is_escaped(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    result = invoke(model, "--prompt", "<b>kalo</b> [b]mi[/b]", "--out", out)
    assert result.exit_code == 0, result.output
    page = (out / "report.html").read_text()
    assert "<b>kalo</b>" not in page
    assert "&lt;b&gt;kalo" in page
    content = json.loads((out / "report.json").read_text())
    assert len(content["alone"]) == len(content["text"]) == len(content["flow"]["norms"][0])


def test_an_encoder_is_told_to_close_block_by_block(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    result = invoke(checkpoint("bert"), "--prompt", "kalo mi", "--out", tmp_path / "report")
    assert result.exit_code == 0, result.output
    assert "running sum" in " ".join(result.stdout.split())
    assert "without zero-layer paths" in result.stdout


def test_what_can_not_be_done_is_one_line(model: Path, text_file: Path, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "notes.txt").write_text("mine")
    for args in (
        (model,),
        (model, "--prompt", "a", "--corpus", text_file),
        (model, "--prompt", ""),
        (model, "--corpus", tmp_path / "none.txt"),
        (model, "--corpus", text_file, "--max-tokens", 0),
        (model, "--corpus", text_file, "--sequence-length", 1000),
        (model, "--corpus", text_file, "--shuffles", 0),
        (model, "--prompt", "kalo", "--out", full),
        (tmp_path / "none", "--prompt", "kalo"),
    ):
        result = invoke(*args)
        assert result.exit_code == 2, args
        assert "Traceback" not in result.output
        error = json.loads(invoke(*args, "--json").stdout)
        assert error["error"]
    assert json.loads(invoke(model, "--json").stdout)["setting"] == "prompt"


def test_numbers_are_whole_in_80_columns_with_biases_and_large_norms(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    result = invoke(model, "--prompt", "kalo mi")
    assert result.exit_code == 0, result.output
    assert "biases" in result.stdout
    assert "…" not in result.stdout.split("before, update")[0]

    found = projector.stream(str(model), prompt="kalo mi")
    large = [
        replace(row, before=large, update=large, attention=large, mlp=large, along_stream=-0.5)
        for row, large in zip(found.flow.rows, (12345.678, 7654321.0), strict=True)
    ]
    console = Console(width=80, color_system=None)
    with console.capture() as captured:
        console.print(_layers(replace(found.flow, rows=tuple(large))))
    assert "…" not in captured.get()
    assert captured.get().count(" 12,346 ") == 4
    assert captured.get().count(" 7.7e+06 ") == 4
