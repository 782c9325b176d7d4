"""``projector layer-image``: a folder written whole or not at all, and one line for mistakes."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from projector.figures.layers import film
from projector.terminal.cli import app
from tests.families import N_HIDDEN, N_LAYERS

PROMPT = "kalo miten raso vel"


@pytest.fixture(autouse=True)
def _no_ffmpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(film, "find_ffmpeg", lambda: None)


def invoke(*args: object) -> Result:
    return CliRunner().invoke(app, ["layer-image", *map(str, args)])


def test_a_folder_holds_pictures_and_what_they_show(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    model = checkpoint("gpt2")
    result = invoke(model, "--prompt", PROMPT, "--token", -2, "--out", out)
    assert result.exit_code == 0, result.output
    assert "clipped" in result.stdout
    assert "ffmpeg" in result.stdout
    content = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert content["kind"] == "layer-image"
    assert (content["n_layers"], content["n_hidden"]) == (N_LAYERS, N_HIDDEN)
    assert content["token"] == len(content["tokens"]) - 2
    assert content["image"]["high"] > 0
    assert 0 < content["image"]["clipped"] < 0.05
    names = {each["name"] for each in content["files"]}
    assert names == {"layers.png", "layers.gif"}
    assert {path.name for path in out.iterdir()} == names | {"report.json"}
    wrote, after = result.stdout.splitlines()[-2:]
    assert all(name in wrote for name in (*names, "report.json"))
    assert after.startswith(f"Next: open {out / 'layers.png'}")
    assert str(tmp_path) not in (out / "report.json").read_text(encoding="utf-8")
    again = invoke(model, "--prompt", PROMPT, "--out", out)
    assert again.exit_code == 2
    assert "--force" in again.stderr
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    forced = invoke(model, "--prompt", PROMPT, "--token", -2, "--out", out, "--force", "--json")
    assert json.loads(forced.stdout) == content
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_two_models_and_a_sequence(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    model = checkpoint("gpt2")
    given = (model, "--prompt", PROMPT, "--token", "mean")
    result = invoke(*given, "--against", model, "--out", tmp_path / "pair")
    assert result.exit_code == 0, result.output
    assert "equal" in result.stdout
    content = json.loads((tmp_path / "pair" / "report.json").read_text(encoding="utf-8"))
    assert content["difference"]["high"] == 0
    assert content["against"]["sha256"] == content["sha256"]
    several = f"{model},{model},{model}"
    result = invoke(*given, "--checkpoints", several, "--out", tmp_path / "film")
    assert result.exit_code == 0, result.output
    with Image.open(tmp_path / "film" / "checkpoints.gif") as image:
        assert image.n_frames == 3


def one_line(result: Result) -> str:
    assert result.exit_code == 2, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("error")]
    assert len(lines) == 1
    return lines[0]


def test_each_mistake_is_one_line(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    model, out = checkpoint("gpt2"), tmp_path / "out"
    for option, value in (
        ("--token", 50),
        ("--quantile", 0.2),
        ("--checkpoints", model),
        ("--fold", 4000),
    ):
        told = one_line(invoke(model, "--prompt", PROMPT, option, value, "--out", out))
        assert option in told
        assert not out.exists()
    assert "--prompt" in one_line(invoke(model, "--prompt", "", "--out", out))
    long = one_line(invoke(model, "--prompt", PROMPT * 60, "--out", out))
    assert "64" in long
    file = tmp_path / "file"
    file.write_text("mine")
    assert "--out" in one_line(invoke(model, "--prompt", PROMPT, "--out", file))
    assert file.read_text() == "mine"


def test_a_full_disk_leaves_nothing(
    checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(film, "_write_gif", refuse)
    out = tmp_path / "out"
    told = one_line(invoke(checkpoint("gpt2"), "--prompt", PROMPT, "--out", out))
    assert "space" in told
    assert not out.exists()
    assert not [path for path in tmp_path.iterdir() if "partial" in path.name]
