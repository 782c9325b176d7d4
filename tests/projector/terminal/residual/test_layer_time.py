"""``projector layer-time``: a folder written whole or not at all; one line for what is wrong."""

from __future__ import annotations

import errno
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from projector.residual.particles import artifact
from projector.terminal.cli import app

A, B = "ka lo mi ten ra so vel", "ka lo du ten ra so vel"


def invoke(*args: object) -> Result:
    return CliRunner().invoke(app, ["layer-time", *map(str, args)])


def files_of(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in folder.iterdir() if each.is_file()}


def error_of(result: Result) -> str:
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    (line,) = [each for each in result.output.splitlines() if each.startswith("error:")]
    return line


def test_a_folder_of_two_prompts(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    args = (checkpoint("llama"), "--prompt", A, "--prompt-b", B, "--out", out)
    result = invoke(*args)
    assert result.exit_code == 0, result.output
    report = json.loads((out / "report.json").read_text())
    names = {"layer-time.html", "layers.png", "layers.gif", "density.gif", "report.json"}
    assert names | {"particles.safetensors"} <= set(files_of(out))
    page = (out / "layer-time.html").read_text()
    assert "src=" not in page.replace("src='data:", "")
    # What a person reads: what is shown, fidelity beside chance, the difference, what to open.
    shown = " ".join(result.output.split())
    for words in (
        f"{report['n_particles']} particles",
        "random",
        "chance",
        "token 3",
        "layer-time.html",
        "projector layer-time",
    ):
        assert words in shown
    for each in report["fidelity"]:
        assert f"{each['neighbours_chance']:.2f}" in shown

    # Nothing is replaced unless that is asked for, and then all of it.
    before = files_of(out)
    assert "--force" in error_of(invoke(*args))
    assert files_of(out) == before
    (out / "left-over").touch()
    again = invoke(*args, "--force", "--json", "--dim", 2)
    assert again.exit_code == 0, again.output
    assert not (out / "left-over").exists()
    content = json.loads(again.stdout.splitlines()[-1])
    assert content == json.loads((out / "report.json").read_text())
    assert content["settings"]["dim"] == 2


def test_the_next_command_keeps_what_was_given(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    given = ("--prompt", A, "--prompt-b", B, "--layers", "0,1", "--keep-outliers", "--dim", "2")
    few = ("--pairs", "0", "--lines", "2", "--dtype", "float32")
    result = invoke(checkpoint("llama"), *given, *few, "--out", out)
    (line,) = [each for each in result.output.splitlines() if each.startswith("Then: ")]
    program, name, model, *options = shlex.split(line.removeprefix("Then: "))
    assert (program, name, model) == ("projector", "layer-time", str(checkpoint("llama")))
    expected = [*given, *few, "--particles", "contributions", "--out", f"{out}-2"]
    assert sorted(options) == sorted(expected)

    # There is nothing to compare of equal prompts, and a placeholder would be run as it is.
    for other in (("--prompt-b", A), ()):
        again = invoke(checkpoint("llama"), "--prompt", A, *other, "--out", out, "--force")
        assert again.exit_code == 0, again.output
        assert "Then: " not in again.output
        assert "…'" not in again.output
    # What the parts of this one add is no running sum, so they can't be shown.
    of_bert = invoke(checkpoint("bert"), "--prompt", A, "--prompt-b", B, "--out", out, "--force")
    assert of_bert.exit_code == 0, of_bert.output
    assert "Then: " not in of_bert.output


def test_no_picture_removes_a_trained_autoencoder(
    checkpoint: Callable[[str], Path], text_file: Path, tmp_path: Path
) -> None:
    out, model = tmp_path / "out", checkpoint("llama")
    code = ("--particles", "autoencoder", "--reduction", "pca")
    made = ("--steps", 2, "--n-particles", 12, "--width", 4, "--corpus", text_file)
    first = invoke(model, "--prompt", A, *code, *made, "--out", out)
    assert first.exit_code == 0, first.output
    weights = out / "autoencoder" / "autoencoder.safetensors"
    before = weights.read_bytes()
    # Neither another picture nor another training takes its place.
    for other in ((), (*code, *made)):
        line = error_of(invoke(model, "--prompt", B, *other, "--out", out, "--force"))
        assert str(out) in line
        assert "autoencoder" in line
        assert weights.read_bytes() == before
    again = invoke(model, "--prompt", B, *code, "--autoencoder", out, "--out", out, "--force")
    assert again.exit_code == 0, again.output
    assert weights.read_bytes() == before
    assert json.loads((out / "report.json").read_text())["prompts"][0]["text"] == B


def test_a_full_disk_leaves_what_was_there(
    checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    out = tmp_path / "out"
    out.mkdir()
    (out / "particles.safetensors").write_bytes(b"before")
    monkeypatch.setattr(artifact, "write_tensors", full)
    line = error_of(invoke(checkpoint("llama"), "--prompt", A, "--out", out, "--force"))
    assert str(out) in line
    assert files_of(out) == {"particles.safetensors": b"before"}
    assert [each.name for each in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (("--prompt", "k"), "--prompt"),
        (("--prompt", ""), "--prompt"),
        (("--prompt", A, "--prompt-b", ""), "--prompt-b"),
        (("--prompt", A, "--prompt-b", "k " * 200), "--prompt-b"),
        (("--prompt", "k " * 200), "shorten"),
        (("--prompt", A, "--layers", "5"), "--layers"),
        (("--prompt", A, "--reduction", "umap", "--neighbours", "99"), "--neighbours"),
        (("--prompt", A, "--reduction", "tsne"), "--reduction"),
        (("--prompt", A, "--dim", "5"), "--dim"),
        (("--prompt", A, "--lines", "-1"), "--lines"),
        (("--prompt", A, "--groups", "3"), "--groups"),
        (("--prompt", A, "--fit", "corpus", "--corpus", "no-such-file.txt"), "no-such-file.txt"),
        (("--prompt", A, "--particles", "autoencoder", "--autoencoder", "none"), "none"),
        (("--prompt", A, "--particles", "contributions", "--projection", "none"), "none"),
    ],
)
def test_what_is_wrong_is_one_line(
    args: tuple[str, ...],
    named: str,
    checkpoint: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    line = error_of(invoke(checkpoint("llama"), *args, "--out", tmp_path / "out"))
    assert named in line
    assert not (tmp_path / "out").exists()


def test_a_folder_of_other_files_is_left_alone(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    result = invoke(checkpoint("llama"), "--prompt", A, "--out", tmp_path, "--force")
    assert str(tmp_path) in error_of(result)
    assert files_of(tmp_path) == {"notes.txt": b"mine"}
    place = tmp_path / "notes.txt" / "out"
    assert "notes.txt" in error_of(invoke(checkpoint("llama"), "--prompt", A, "--out", place))
