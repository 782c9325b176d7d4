"""``projector lens``: a table for a person, rows for scripts, a report in a folder."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import projector
from projector.corpus.pieces import readable
from projector.residual.subject import Subject
from projector.terminal.cli import app

PROMPT = "kalo mi ten. rasovel du"


def invoke(*args: object) -> Result:
    return CliRunner().invoke(app, ["lens", *map(str, args)])


def test_rows_for_scripts_and_a_report(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    out = tmp_path / "report"
    given = ("--prompt", PROMPT, "--top", 3, "--json", "--out", out)
    result = invoke(checkpoint("llama"), *given)
    assert result.exit_code == 0, result.output
    value = json.loads(result.stdout)
    n_tokens, n_readings = len(value["tokens"]), 5
    assert len(value["rows"]) == n_tokens * n_readings
    first = value["rows"][0]
    assert set(first) == {
        "layer",
        "stream",
        "position",
        "token",
        "id",
        "top",
        "probability",
        "rank",
        "entropy",
        "kl",
    }
    assert (first["layer"], first["stream"], len(first["top"])) == (0, "resid_pre", 3)
    # Texts as they are, with ids, as `attribute` has them.
    texts = Subject.of(str(checkpoint("llama"))).pieces()
    for row in value["rows"]:
        assert row["token"] == texts.text(row["id"])
        for top in row["top"]:
            assert set(top) == {"token", "id", "probability"}
            assert top["token"] == texts.text(top["id"])
    assert any(" " in row["token"] for row in value["rows"])
    assert value["tokens"] == [texts.text(i) for i in value["token_ids"]]
    assert value["rows"][-1]["kl"] == 0
    assert value["rows"][-1]["probability"] is None
    assert json.loads((out / "report.json").read_text()) == value
    page = (out / "report.html").read_text()
    assert page.count("data-tip=") == n_tokens * n_readings

    # A report is not replaced unasked, and that is told before any work.
    again = invoke(checkpoint("llama"), *given)
    assert again.exit_code == 2
    assert json.loads(again.stdout)["setting"] == "force"


def test_a_person_reads_a_table_and_where_the_prediction_settles(
    checkpoint: Callable[[str], Path],
) -> None:
    result = invoke(checkpoint("llama"), "--prompt", PROMPT, "--last", 2)
    assert result.exit_code == 0, result.output
    found = projector.lens(str(checkpoint("llama")), PROMPT, n_last=2)
    assert found.positions == (len(found.ids) - 2, len(found.ids) - 1)
    told = " ".join(result.stdout.split())
    top = found.top(-1, -1)[0][0]
    assert f"‘{readable(top)}’" in told
    for title in ("embedding", "KL", readable(found.tokens[-1])):
        assert title in told


@pytest.mark.parametrize("last", [None, 6])
def test_tokens_that_do_not_fit_are_told(
    checkpoint: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    last: int | None,
) -> None:
    args = ["--prompt", PROMPT, *(() if last is None else ("--last", last))]
    tokens = projector.lens(str(checkpoint("llama")), PROMPT).tokens
    first = 0 if last is None else len(tokens) - last
    n_shown = {}
    for columns in (30, 60, 80, 500):
        monkeypatch.setenv("COLUMNS", str(columns))
        result = invoke(checkpoint("llama"), *args)
        assert result.exit_code == 0, result.output
        lines = result.stdout.splitlines()
        told = re.search(r"(\d+) earlier tokens? \((\d+).*?\)", " ".join(result.stdout.split()))
        n_left_out = int(told[1]) if told else 0
        n_shown[columns] = len(tokens) - first - n_left_out
        if told:
            assert int(told[2]) == first
            assert "--out DIR" in " ".join(result.stdout.split())
        if columns >= 60:
            (title,) = (line for line in lines if "layer" in line and "KL" in line)
            names = [readable(text) for text in tokens[first + n_left_out :]]
            assert title.split() == ["layer", "KL", *names]
    assert 1 <= n_shown[30] < n_shown[60] <= n_shown[80] <= n_shown[500] == len(tokens) - first

    # Where a report is written, it is the report that has them.
    monkeypatch.setenv("COLUMNS", "60")
    result = invoke(checkpoint("llama"), *args, "--out", tmp_path / "report")
    assert "--out DIR" not in " ".join(result.stdout.split())


@pytest.mark.parametrize(
    ("family", "prompt", "words"),
    [
        ("bert", PROMPT, "encoder"),
        ("llama", "", "empty"),
        ("llama", "kalo " * 100, "tokens"),
    ],
)
def test_what_cannot_be_read_is_one_line(
    checkpoint: Callable[[str], Path], family: str, prompt: str, words: str
) -> None:
    result = invoke(checkpoint(family), "--prompt", prompt, "--json")
    assert result.exit_code == 2
    error = json.loads(result.stdout)["error"]
    assert words in error
    assert "\n" not in error
    assert result.stderr.count(error) == 1
    assert "Traceback" not in result.output


def test_bad_numbers_are_refused_before_the_model_is_loaded(tmp_path: Path) -> None:
    for option, setting in (("--top", "n_top"), ("--last", "n_last")):
        result = invoke(tmp_path / "none", "--prompt", "a", option, 0, "--json")
        assert result.exit_code == 2
        assert json.loads(result.stdout)["setting"] == setting


def test_the_python_door_takes_a_subject(checkpoint: Callable[[str], Path]) -> None:
    subject = Subject.of(str(checkpoint("llama")))
    assert projector.lens(subject, PROMPT).ids == tuple(subject.encode(PROMPT))
