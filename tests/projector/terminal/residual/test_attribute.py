"""``projector attribute``: for a person, as one JSON object, and as a report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import projector
from projector.terminal.cli import app

PROMPT = "kalo miten raso"


@pytest.fixture(scope="module")
def model(checkpoint: Callable[[str], Path]) -> Path:
    return checkpoint("llama")


def invoke(model: object, *args: object) -> Result:
    return CliRunner().invoke(app, ["attribute", str(model), *map(str, args)])


def read(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    value: dict[str, Any] = json.loads(result.stdout)
    return value


def error_of(result: Result) -> str:
    """The one line that says what was wrong; bars of the loading library come before it."""
    assert result.exit_code == 2
    (line,) = (each for each in result.stderr.splitlines() if each and "Loading" not in each)
    return str(line)


def test_one_object_for_a_script_and_a_report(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    value = read(invoke(model, "--prompt", PROMPT, "--json", "--out", out))
    assert value["position"] == len(value["ids"]) - 1
    total = sum(part["value"] for part in value["parts"])
    size = sum(abs(part["value"]) for part in value["parts"])
    assert abs(total - value["logit"]) / size <= 1e-5
    assert value["closure_error"] <= 1e-5
    assert value["additivity_error"] <= 1e-5
    assert value["token"] == value["top"][0]["id"]
    assert json.loads((out / "report.json").read_text(encoding="utf-8")) == value
    assert value["parts"][0]["name"] in (out / "report.html").read_text(encoding="utf-8")


def test_a_difference_at_a_position(model: Path) -> None:
    args = ("--prompt", PROMPT, "--position", -2, "--token", "#40", "--against", "#50")
    value = read(invoke(model, *args, "--neurons", 2, "--json"))
    assert (value["token"], value["against"]) == (40, 50)
    assert value["position"] == len(value["ids"]) - 2
    assert [part["kind"] for part in value["neurons"]] == ["neuron", "neuron", "other neurons"]


def test_what_the_lens_reads_at_a_layer(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    args = ("--prompt", PROMPT, "--until", "0 mid", "--json", "--out", out)
    value = read(invoke(model, *args))
    assert value["until"] == [0, "resid_mid"]
    kinds = {part["kind"] for part in value["parts"]}
    assert "head" in kinds
    assert "mlp" not in kinds
    assert abs(sum(part["value"] for part in value["parts"]) - value["logit"]) < 1e-4
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "layer 0" in page
    assert "until" in error_of(invoke(model, "--prompt", PROMPT, "--until", "7 mid"))


def test_a_person_reads_parts_sums_and_errors(model: Path) -> None:
    result = invoke(model, "--prompt", PROMPT)
    assert result.exit_code == 0, result.output
    for text in ("raise", "lower", "L1 MLP", "−", "embedding", "accepted"):
        assert text in result.stdout


def test_all_neurons_asked_for_are_listed_and_parts_left_out_are_counted(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("projector.terminal.residual.attribute._N_SHOWN", 1)
    found = projector.attribute(str(model), PROMPT, n_neurons=11)
    result = invoke(model, "--prompt", PROMPT, "--neurons", 11)
    assert result.exit_code == 0, result.output
    names = [part.name for part in found.neurons if part.kind == "neuron"]
    assert len(names) == 11
    listed = result.stdout[result.stdout.index("neurons, shares") :]
    assert [line.strip().split("  ")[0] for line in listed.splitlines()[2:13]] == names
    for sign in (1, -1):
        n_more = sum(part.value * sign > 0 for part in found.parts) - 1
        more = "1 more part" if n_more == 1 else f"{n_more} more parts"
        assert n_more > 0
        assert more in result.stdout
    assert "neurons, shares" not in invoke(model, "--prompt", PROMPT, "--neurons", 0).stdout


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (("--token", "kalozzqx"), "--token 'kalozzqx'"),
        (("--against", "#9999"), "--against '#9999'"),
        (("--position", 99), "--position 99"),
        (("--position", -99), "--position -99"),
        (("--neurons", -1), "--neurons -1"),
    ],
)
def test_bad_input_is_one_line(model: Path, args: tuple[object, ...], named: str) -> None:
    result = invoke(model, "--prompt", PROMPT, *args)
    assert named in error_of(result)


@pytest.mark.parametrize("prompt", ["", "kalo " * 200])
def test_a_prompt_that_is_empty_or_too_long(model: Path, prompt: str) -> None:
    result = invoke(model, "--prompt", prompt)
    assert error_of(result)


def test_an_encoder_is_refused(checkpoint: Callable[[str], Path]) -> None:
    result = invoke(checkpoint("bert"), "--prompt", PROMPT)
    assert "encoder" in error_of(result)


def test_python_gives_the_same(model: Path) -> None:
    value = read(invoke(model, "--prompt", PROMPT, "--token", "#40", "--json"))
    found = projector.attribute(str(model), PROMPT, token="#40")
    assert json.loads(json.dumps(found.as_dict())) == value
