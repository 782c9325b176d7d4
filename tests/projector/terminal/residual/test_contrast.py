"""``projector contrast``: a report written whole or not at all, and one line for what is wrong."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from projector.bundled.train import train_tokenizer
from projector.errors import SettingError
from projector.residual.contrast.report import contrast
from projector.residual.directions.artifact import Directions
from projector.residual.flow.words import number
from projector.terminal.cli import app
from projector.terminal.residual.contrast import _folder_names
from tests.families import N_VOCABULARY

FAMILIES = ("llama", "gpt2", "gpt_neox", "gemma2")
QUICK = ("--draws", 20, "--seed", 1)
COLUMNS = {
    "model",
    "layer",
    "stream",
    "cosine",
    "cosine_low",
    "cosine_high",
    "cosine_split_half",
    "cosine_permuted",
    "variance_mean_positive",
    "variance_mean_negative",
    "variance_max_positive",
    "variance_max_negative",
    "growth_pre",
    "growth_update",
    "growth_covariance",
    "probe_accuracy",
    "probe_permuted",
}


def invoke(*args: object) -> Result:
    return CliRunner().invoke(app, ["contrast", *map(str, args)])


def write(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join([*lines, ""]), encoding="utf-8")
    return path


@pytest.fixture
def files(tmp_path: Path) -> tuple[object, ...]:
    """Options that name two files of prompts whose last words are one and the same in each."""
    words = ("ka", "lo", "mi", "ten", "ra", "so", "vel", "du")
    one = [f"{a} {b} 1" for i, a in enumerate(words) for b in words[:3]]
    other = [f"{a} so {b} vel" for a in words for b in words[3:6]]
    a, b = write(tmp_path / "one.txt", one), write(tmp_path / "other.txt", other)
    return "--positive", a, "--negative", b


@pytest.mark.parametrize("family", [*FAMILIES, "bert"])
def test_every_family_is_reported(
    family: str, checkpoint: Callable[[str], Path], files: tuple[object, ...], tmp_path: Path
) -> None:
    out = tmp_path / "report"
    model = checkpoint(family)
    at = "mean" if family == "bert" else "last"
    result = invoke(model, *files, *QUICK, "--at", at, "--out", out)
    assert result.exit_code == 0, result.output
    assert "permuted" in result.stdout
    assert "nan" not in result.stdout.lower()
    content = json.loads((out / "report.json").read_text(encoding="utf-8"))
    rows = content["rows"]
    assert set(rows[0]) >= COLUMNS
    streams = {row["stream"] for row in rows}
    assert streams == {"resid_pre", "resid_post"} | (
        set() if family == "gpt_neox" else {"resid_mid"}
    )
    assert {row["layer"] for row in rows} == {0, 1}
    for row in rows:
        assert -1 <= row["cosine_low"] <= row["cosine_high"] <= 1.0001
        shares = [row[f"growth_{part}"] for part in ("pre", "update", "covariance")]
        is_embedding = (row["layer"], row["stream"]) == (0, "resid_pre")
        if is_embedding:
            assert shares == [None] * 3
            # All prompts of a set end in the same token.
            assert (row["variance_mean_positive"] == 0) is (at == "last")
        elif None not in shares:
            assert sum(shares) == pytest.approx(1, abs=1e-6)
    assert at == "mean" or any("same token" in note for note in content["notes"])
    assert ("projector steer" in result.stdout) is (at == "last")
    with (out / "report.csv").open(encoding="utf-8", newline="") as file:
        written = [*csv.DictReader(file)]
    for row, cells in zip(rows, written, strict=True):
        assert json.loads(cells.pop("reasons")) == row.pop("reasons")
        assert cells == {k: "" if value is None else str(value) for k, value in row.items()}
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Plotly.newPlot(" in page
    assert not re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="http', page)
    assert Directions.load(out / "directions").layers == (0, 1)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".report")]


def test_several_models_of_different_tokenizers_and_the_same_again(
    checkpoint: Callable[[str], Path], files: tuple[object, ...], tmp_path: Path
) -> None:
    other = tmp_path / "gpt2"
    shutil.copytree(checkpoint("gpt2"), other)
    train_tokenizer(iter(["ka lo 1 so vel " * 50]), N_VOCABULARY).save_pretrained(other)
    models = [checkpoint("llama"), other]
    out = tmp_path / "report"
    assert invoke(*models, *files, *QUICK, "--out", out).exit_code == 0
    content = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert len({row["model"] for row in content["rows"]}) == 2
    assert any("different tokenizers" in note for note in content["notes"])
    assert sorted(path.name for path in (out / "directions").iterdir()) == ["gpt2", "llama"]
    # Nothing is replaced unasked; asked, it is the same again.
    refused = invoke(*models, *files, *QUICK, "--out", out, "--json")
    assert (refused.exit_code, json.loads(refused.stdout)["setting"]) == (2, "force")
    again = invoke(*models, *files, *QUICK, "--out", out, "--force", "--json")
    assert json.loads(again.stdout) == content
    assert json.loads((out / "report.json").read_text(encoding="utf-8")) == content


def test_each_continuation_has_a_table_and_panels_of_its_own(
    checkpoint: Callable[[str], Path], files: tuple[object, ...], tmp_path: Path
) -> None:
    out, texts = tmp_path / "report", [" ka", " [b]lo"]
    given = [each for text in texts for each in ("--continuation", text)]
    result = invoke(checkpoint("llama"), *files, *QUICK, *given, "--layers", "1", "--out", out)
    assert result.exit_code == 0, result.output
    effects = json.loads((out / "report.json").read_text(encoding="utf-8"))["directions"]
    assert {each["continuation"] for each in effects} == set(texts)
    for text in texts:
        table = result.stdout.partition(f"continuation ‘␣{text[1:]}’")[2].splitlines()[3:6]
        own = [each for each in effects if each["continuation"] == text]
        for line, (one, other) in zip(table, batched(own), strict=True):
            wanted = [number(each["effect"], "+.3f") for each in (one, other)]
            cells = [cell.rstrip("*") for cell in line.split()]
            assert [cell for cell in cells if cell in wanted] == wanted, line
    assert "log-perplexity" not in result.stdout
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "total log-probability" in page
    assert "[b]lo" in page


def batched(each: list[Any]) -> list[list[Any]]:
    return [each[i : i + 2] for i in range(0, len(each), 2)]


def test_what_can_be_told_without_weights_is_told_before_they_are_read(
    checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*given: object, **options: object) -> None:
        raise AssertionError("weights were read")

    monkeypatch.setattr("projector.terminal.residual.contrast.open_subject", load)
    monkeypatch.setattr("projector.residual.subject.load_model", load)
    models = checkpoint("llama"), checkpoint("gpt2")
    given: list[tuple[tuple[object, ...], str, object]] = [
        (("--layers", "1,99"), "layers", 99),
        (("--continuation", ""), "continuations", ""),
        (("--continuation", "a", "--continuation", "a"), "continuations", "a"),
    ]
    out = tmp_path / "report"
    for args, setting, value in given:
        error = failed(*models, "--pair", "negation", *args, "--out", out)
        assert (error["setting"], error["value"]) == (setting, value)
    with pytest.raises(SettingError) as caught:
        contrast([str(each) for each in models], pair="negation", layers=[99])
    assert (caught.value.setting, caught.value.value) == ("layers", 99)
    if Path("/proc/self").exists():
        error = failed(*models, "--pair", "negation", "--out", "/proc/x")
        assert (error["setting"], error["value"]) == ("out", "/proc/x")


def test_a_prompt_too_long_for_one_of_several_models_is_told_before_any_runs(
    checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = tmp_path / "short"
    shutil.copytree(checkpoint("llama"), short)
    config = json.loads((short / "config.json").read_text(encoding="utf-8"))
    config["max_position_embeddings"] = 16
    (short / "config.json").write_text(json.dumps(config), encoding="utf-8")
    good = write(tmp_path / "good.txt", [f"ka {i}" for i in range(12)])
    long = write(tmp_path / "long.txt", [*(f"lo {i}" for i in range(12)), "ka " * 30])

    def run(*given: object, **options: object) -> None:
        raise AssertionError("a model ran")

    monkeypatch.setattr("projector.residual.contrast.report.collect_states", run)
    out = tmp_path / "report"
    error = failed(checkpoint("llama"), short, "--positive", good, "--negative", long, "--out", out)
    assert error["setting"] == "negative"
    assert f"'{long}' line 13" in error["error"]
    assert " 16" in error["error"]
    assert not out.exists()


def test_what_is_wrong_is_one_line_and_writes_nothing(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    model = checkpoint("llama")
    good = write(tmp_path / "good.txt", [f"ka {i}" for i in range(12)])
    other = write(tmp_path / "other.txt", [f"mi {i}" for i in range(12)])
    long = write(tmp_path / "long.txt", [*(f"lo {i}" for i in range(12)), "", "ka " * 90])
    latin = tmp_path / "latin.txt"
    latin.write_bytes(b"caf\xe9\n")
    broken = write(tmp_path / "broken.jsonl", ['"ka"', "{"])
    single = write(tmp_path / "single.txt", ["", "ka", ""])
    copy = write(tmp_path / "copy.txt", [f"ka {i}" for i in range(12)])
    blocked = tmp_path / "good.txt" / "report"
    given: list[tuple[tuple[object, ...], str, object, str]] = [
        (("--positive", single, "--negative", other), "positive", str(single), ""),
        (("--positive", good, "--negative", copy), "positive", str(good), "12 "),
        (("--positive", good, "--negative", long), "negative", None, "line 14"),
        (("--positive", tmp_path / "none", "--negative", other), "positive", None, ""),
        (("--positive", good, "--negative", tmp_path), "negative", str(tmp_path), ""),
        (("--positive", latin, "--negative", other), "positive", str(latin), "UTF-8"),
        (("--positive", good, "--negative", broken), "negative", "{", "line 2"),
        (("--positive", good), "positive", str(good), "--negative"),
        (("--negative", good), "negative", str(good), "--positive"),
        (("--pair", "nothing"), "pair", "nothing", "negation"),
        (("--pair", "negation", "--positive", good), "pair", "negation", ""),
        (("--pair", "negation", "--at", "first"), "at", "first", ""),
        (("--pair", "negation", "--draws", 1), "n_draws", 1, ""),
        (("--pair", "negation", "--layers", "x"), "layers", "x", ""),
        ((model, "--pair", "negation"), "models", str(model), ""),
    ]
    out = tmp_path / "report"
    before = sorted(tmp_path.iterdir())
    for args, setting, value, says in given:
        error = failed(model, *args, "--out", out)
        assert error["setting"] == setting, error
        assert value is None or error["value"] == value, error
        assert says in error["error"]
    failed(tmp_path / "no-model", "--pair", "negation", "--out", out)
    assert failed(model, "--pair", "negation", "--out", blocked)["setting"] == "out"
    assert failed(model, "--pair", "negation", "--out", tmp_path)["setting"] == "out"
    assert sorted(tmp_path.iterdir()) == before


def failed(*args: object) -> dict[str, Any]:
    """What a command that fails tells a script; a person has one line of it."""
    result = invoke(*args, "--json")
    assert result.exit_code == 2, (args, result.output)
    # What loading draws stands above it.
    lines = result.stderr.strip().splitlines()
    assert [line.startswith("error: ") for line in lines][-1:] == [True]
    assert sum("error" in line for line in lines) == 1
    assert "Traceback" not in result.output
    error: dict[str, Any] = json.loads(result.stdout)
    return error


def test_models_have_folders_of_their_own() -> None:
    names = _folder_names(["/a/tiny", "org/Tiny", "../..", "a b/c:d"])
    assert names == ["tiny", "Tiny-2", "model", "c-d"]
