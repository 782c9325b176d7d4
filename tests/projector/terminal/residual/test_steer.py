"""``projector steer``: what it prints, and one line for what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from projector.errors import SettingError
from projector.model.hashing import hash_checkpoint
from projector.residual.directions.steering import steer
from projector.terminal.cli import app
from tests.projector.residual.directions.test_artifact import made

run = CliRunner().invoke


def _saved(checkpoint: Callable[[str], Path], folder: Path, family: str = "llama") -> list[str]:
    model = checkpoint(family)
    replace(made(), model_sha256=hash_checkpoint(model)).save(folder / "directions")
    return ["steer", str(model), "--direction", str(folder), "--device", "cpu"]


def test_three_continuations_are_shown(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    options = ["--layer", "1", "--scale", "-0.5", "--prompt", "kalo [b]mi", "--new-tokens", "5"]
    asked = [*_saved(checkpoint, tmp_path), *options]
    result = run(app, asked)
    assert result.exit_code == 0, result.output
    for words in ("direction", "norm", "kalo [b]mi", "−0.5"):
        assert words in result.output
    found = json.loads(run(app, [*asked, "--json"]).stdout)
    assert [each["change"] for each in found["continuations"]] == ["none", "direction", "random"]
    assert (found["layer"], found["scale"], found["pair"]) == (1, -0.5, "planted")
    assert all(1 <= len(each["ids"]) <= 5 for each in found["continuations"])
    assert found["reason"] is None


@pytest.mark.parametrize(
    ("options", "setting", "value"),
    [
        (["--layer", "7"], "layer", 7),
        (["--layer", "0", "--scale", "nan"], "scale", None),
        (["--layer", "0", "--new-tokens", "500"], "n_new", 500),
        (["--layer", "0", "--chat"], None, None),
        (["--layer", "0", "--direction", "nowhere"], "direction", "nowhere"),
    ],
)
def test_wrong_inputs_have_one_line_each(
    checkpoint: Callable[[str], Path],
    tmp_path: Path,
    options: list[str],
    setting: str | None,
    value: object,
) -> None:
    asked = [*_saved(checkpoint, tmp_path), "--prompt", "kalo mi", *options]
    result = run(app, [*asked, "--json"])
    assert result.exit_code == 2
    found = json.loads(result.stdout)
    assert found["setting"] == setting
    assert value is None or found["value"] == value
    assert "\n" not in found["error"]


def test_a_layer_without_direction_is_told_before_weights_are_read(
    checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*given: object, **options: object) -> None:
        raise AssertionError("weights were read")

    monkeypatch.setattr("projector.terminal.residual.steer.open_subject", load)
    monkeypatch.setattr("projector.residual.subject.load_model", load)
    asked = _saved(checkpoint, tmp_path)
    result = run(app, [*asked, "--layer", "33", "--prompt", "kalo", "--json"])
    assert (result.exit_code, json.loads(result.stdout)["setting"]) == (2, "layer")
    with pytest.raises(SettingError) as caught:
        steer(asked[1], "kalo", tmp_path, layer=33, scale=1)
    assert (caught.value.setting, caught.value.value) == ("layer", 33)


def test_an_encoder_continues_nothing(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    asked = _saved(checkpoint, tmp_path, "bert")
    result = run(app, [*asked, "--layer", "0", "--prompt", "kalo", "--json"])
    assert result.exit_code == 2
    assert "encoder" in json.loads(result.stdout)["error"]
