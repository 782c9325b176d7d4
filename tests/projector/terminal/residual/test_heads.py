"""``projector heads``: kinds for a person, rows for scripts, a report in a folder."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import projector
from projector.errors import SettingError, UserError
from projector.residual.heads.report import heads
from projector.residual.settings import parse_heads
from projector.terminal.cli import app
from projector.terminal.residual.heads import _show_prompt
from projector.terminal.screen import Screen

PROMPT = "kalo mi ten. rasovel du"
QUICK = ("--sequences", 1, "--repeat-length", 8, "--random-heads", 8)


def invoke(*args: object) -> Result:
    return CliRunner().invoke(app, ["heads", *map(str, args)])


def test_rows_for_scripts_and_a_report(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    out = tmp_path / "report"
    given = ("--prompt", PROMPT, "--show", "1.2,0.3", "--json", "--out", out, *QUICK)
    result = invoke(checkpoint("llama"), *given)
    assert result.exit_code == 0, result.output
    value = json.loads(result.stdout)
    assert len(value["rows"]) == 8
    assert {"layer", "head", "kv_group"} <= set(value["rows"][0])
    for kind in ("previous_token", "duplicate_token", "induction", "beginning", "copying"):
        assert all(0 <= row[f"{kind}_percentile"] <= 100 for row in value["rows"])
        assert all(row[kind] is not None for row in value["rows"])
    assert value["shown"] == [[1, 2], [0, 3]]
    assert [(each["layer"], each["head"]) for each in value["pairs"]] == [(1, 2), (0, 3)]
    # What a token takes from all before it is all there is, but for shares below 1 %.
    tokens = value["prompt"]["tokens"]
    for pattern in value["prompt"]["patterns"]:
        for row, attended in enumerate(pattern["attends"]):
            assert all(at <= row for at, _ in attended)
            assert sum(share for _, share in attended) == pytest.approx(1, abs=0.01 * len(tokens))
    assert value["virtual_heads"]["closure_error"] < 1e-5
    assert json.loads((out / "report.json").read_text()) == value
    assert "<html" in (out / "report.html").read_text()

    again = invoke(checkpoint("llama"), *given)
    assert again.exit_code == 2
    assert json.loads(again.stdout)["setting"] == "force"


def test_a_person_reads_kinds_beside_chance(checkpoint: Callable[[str], Path]) -> None:
    result = invoke(checkpoint("llama"), "--prompt", PROMPT, "--show", "L1H2", *QUICK)
    assert result.exit_code == 0, result.output
    for words in ("induction", "by chance", "0 of 8", "L1 H2", "composition"):
        assert words in result.output
    # Tokens are told from their positions, and the list is explained.
    text = " ".join(result.output.split())
    found = re.search(r"attends (.*?) each token", text)
    assert found is not None
    places = re.findall(r"‘[^’]+’ (\d+) → ‘[^’]+’ (\d+) (0\.\d\d|1\.00)", found[1])
    assert len(places) == 6
    assert all(0 < int(column) <= int(row) for row, column, _ in places)
    assert "first token" in text


def test_a_head_on_the_first_token_alone_is_told(
    checkpoint: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    found = heads(str(checkpoint("gpt2")), [5], show="0.1", n_sequences=1, length=8, n_random=0)
    _show_prompt(Screen(as_json=False), found)
    assert "first token" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("options", "setting"),
    [
        (("--random-heads", -1), "n_random"),
        (("--repeat-length", 400), "length"),
        (("--show", "three"), "show"),
        (("--show", "7.0"), "show"),
        (("--show", "0.9"), "show"),
        (("--prompt", PROMPT, "--position", 99), "position"),
        (("--prompt", PROMPT, "--token", "#99999"), "token"),
    ],
)
def test_what_is_wrong_is_named(
    checkpoint: Callable[[str], Path], options: tuple[object, ...], setting: str
) -> None:
    result = invoke(checkpoint("llama"), *options, "--json")
    assert result.exit_code == 2
    assert json.loads(result.stdout)["setting"] == setting


def test_an_encoder_has_no_kinds_of_heads(checkpoint: Callable[[str], Path]) -> None:
    result = invoke(checkpoint("bert"), "--json", *QUICK)
    assert result.exit_code == 2
    assert "both directions" in json.loads(result.stdout)["error"]


def test_the_python_door_gives_what_the_command_prints(checkpoint: Callable[[str], Path]) -> None:
    model = str(checkpoint("gpt2"))
    quick = {"n_sequences": 1, "length": 8, "n_random": 8}
    found = projector.heads(model, PROMPT, show=[(0, 1)], **quick)
    result = invoke(model, "--prompt", PROMPT, "--show", "0.1", "--json", *QUICK)
    assert json.loads(result.stdout) == json.loads(json.dumps(found.as_dict()))
    pattern = found.prompt.patterns[0, 1]
    assert pattern.sum(-1).tolist() == pytest.approx([1.0] * len(found.prompt.ids), abs=1e-5)


def test_a_prompt_of_one_token_is_shown_too(checkpoint: Callable[[str], Path]) -> None:
    found = heads(str(checkpoint("gpt2")), [5], show="0.1", n_sequences=1, length=8, n_random=0)
    assert found.prompt is not None
    assert found.prompt.patterns[0, 1].tolist() == [[1.0]]


def test_heads_are_named_in_a_few_ways() -> None:
    assert parse_heads("3.2, L4H1,5 0") == [(3, 2), (4, 1), (5, 0)]
    for text in ("", "3", "3.2.1", "a.b"):
        with pytest.raises(SettingError) as caught:
            parse_heads(text)
        assert caught.value.setting == "show"
    assert issubclass(SettingError, UserError)
