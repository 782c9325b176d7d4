"""The tuned lens: it comes nearer to the model than the logit lens, and is of one model alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import projector
from projector.errors import SettingError, UserError
from projector.model.loading import LoadedModel
from projector.residual.lens import Reading, run_lens, run_lenses
from projector.residual.readings.settings import TuningSettings
from projector.residual.readings.tuned_lens import (
    JSON_FILE,
    TENSOR_FILE,
    Translation,
    TunedLens,
)
from projector.residual.readings.tuning import tune_lens
from projector.residual.subject import Subject
from projector.terminal.cli import app
from tests.families import build
from tests.refused import refused_naming

PROMPT = "kalo mi ten. rasovel du"
SETTINGS = TuningSettings(n_steps=30, tokens_per_step=96, sequence_length=32, learning_rate=0.01)


def _subject(model: Any, tokenizer: Any, sha256: str = "a" * 64) -> Subject:
    return Subject(LoadedModel(model, tokenizer, "tiny", sha256))


@pytest.fixture(scope="module")
def trained(tokenizer: Any, text: str) -> tuple[Subject, TunedLens]:
    subject = _subject(build("gemma2"), tokenizer)
    before = {name: tensor.clone() for name, tensor in subject.model.state_dict().items()}
    tuned = tune_lens(subject, [text], SETTINGS)
    after = subject.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(p.grad is None for p in subject.model.parameters())
    return subject, tuned


def test_held_out_kl_falls(trained: tuple[Subject, TunedLens]) -> None:
    _, tuned = trained
    held_out = tuned.facts["held_out"]
    assert [(r["layer"], r["stream"]) for r in held_out["rows"]] == [
        (0, "resid_pre"),
        (0, "resid_post"),
    ]
    for row in held_out["rows"]:
        assert row["tuned_lens_kl"] < 0.8 * row["logit_lens_kl"]


def test_maps_of_zeros_are_the_logit_lens(tokenizer: Any) -> None:
    subject = _subject(build("llama"), tokenizer)
    maps = {
        Reading(0, stream): Translation(torch.zeros(24, 24), torch.zeros(24))
        for stream in ("resid_pre", "resid_post")
    }
    tuned = TunedLens(maps, {"model": {"id": "tiny", "sha256": "a" * 64}})
    ids = subject.encode(PROMPT)
    plain = run_lens(subject, ids, streams=("resid_pre", "resid_post"))
    found = run_lens(subject, ids, tuned=tuned)
    assert (plain.lens, found.lens) == ("logit lens", "tuned lens")
    # What it has no map for, it doesn't read.
    assert found.readings == plain.readings
    torch.testing.assert_close(found.kl, plain.kl)
    # Both from one run, and as each alone.
    runs: list[int] = []
    hook = subject.model.register_forward_pre_hook(lambda *_: runs.append(1))
    both = run_lenses(subject, ids, [tuned, None])
    hook.remove()
    assert len(runs) == 1
    assert [each.lens for each in both] == ["tuned lens", "logit lens"]
    assert both[0].as_dict() == found.as_dict()
    assert both[1].as_dict() == run_lens(subject, ids).as_dict()
    # A map is h + A h + b.
    shift = Translation(torch.diag(torch.arange(24.0)), torch.ones(24))
    h = torch.randn(3, 24)
    torch.testing.assert_close(shift.apply(h), h + h * torch.arange(24.0) + 1)


def test_saved_and_loaded_it_reads_the_same(
    trained: tuple[Subject, TunedLens], tmp_path: Path
) -> None:
    subject, tuned = trained
    for name in ("one", "two"):
        tuned.save(tmp_path / name)
    for file in (JSON_FILE, TENSOR_FILE):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    again = TunedLens.load(tmp_path / "one")
    assert list(again.maps) == list(tuned.maps)
    assert again.facts == json.loads(json.dumps(tuned.facts))
    own, loaded = (projector.lens(subject, PROMPT, tuned=each) for each in (tuned, again))
    assert torch.equal(own.kl, loaded.kl)
    with pytest.raises(UserError) as caught:
        tuned.save(tmp_path / "one")
    assert caught.value.setting == "force"
    tuned.save(tmp_path / "one", force=True)


def test_equal_training_gives_equal_maps(tokenizer: Any, text: str) -> None:
    settings = TuningSettings(n_steps=3, tokens_per_step=64, sequence_length=32)
    first, second = (
        tune_lens(_subject(build("llama"), tokenizer), [text], settings) for _ in range(2)
    )
    assert all(torch.equal(first.maps[r].weight, second.maps[r].weight) for r in first.maps)
    assert first.facts == second.facts


def test_it_is_refused_for_other_weights(
    trained: tuple[Subject, TunedLens], tokenizer: Any
) -> None:
    _, tuned = trained
    other = _subject(build("gemma2", seed=1), tokenizer, "b" * 64)
    with pytest.raises(UserError) as caught:
        projector.lens(other, PROMPT, tuned=tuned)
    assert (caught.value.setting, caught.value.value) == ("tuned", "tiny")


def test_what_is_no_tuned_lens_is_refused(
    trained: tuple[Subject, TunedLens], tmp_path: Path
) -> None:
    _, tuned = trained

    def refused(folder: Path) -> None:
        with pytest.raises(UserError) as caught:
            TunedLens.load(folder)
        assert caught.value.setting == "tuned"

    refused(tmp_path / "none")
    folder = tmp_path / "lens"
    tuned.save(folder)
    whole = (folder / TENSOR_FILE).read_bytes()
    (folder / TENSOR_FILE).write_bytes(whole[:-100])
    refused(folder)
    (folder / TENSOR_FILE).unlink()
    refused(folder)
    (folder / TENSOR_FILE).write_bytes(whole)
    content = json.loads((folder / JSON_FILE).read_text())
    content["model"]["n_hidden"] = 25
    (folder / JSON_FILE).write_text(json.dumps(content))
    refused(folder)


def test_logits_that_are_not_finite_are_told(tokenizer: Any) -> None:
    subject = _subject(build("llama"), tokenizer)
    nan = Translation(torch.full((24, 24), torch.nan), torch.zeros(24))
    tuned = TunedLens({Reading(0, "resid_pre"): nan}, {"model": {"id": "", "sha256": "a" * 64}})
    with pytest.raises(UserError, match="layer 0") as caught:
        projector.lens(subject, PROMPT, tuned=tuned)
    assert caught.value.setting == "dtype"


def test_what_cannot_be_trained_is_refused(tokenizer: Any) -> None:
    with pytest.raises(UserError, match="encoder"):
        tune_lens(_subject(build("bert"), tokenizer), [PROMPT])
    with refused_naming("one sequence"):
        tune_lens(_subject(build("llama"), tokenizer), [PROMPT])
    with pytest.raises(SettingError) as caught:
        tune_lens(_subject(build("llama"), tokenizer), [PROMPT], TuningSettings(sequence_length=65))
    assert (caught.value.setting, caught.value.value) == ("sequence_length", 65)
    for name in ("n_steps", "tokens_per_step", "sequence_length", "learning_rate"):
        with pytest.raises(SettingError) as caught:
            TuningSettings(**{name: 0})
        assert (caught.value.setting, caught.value.value) == (name, 0)


def test_from_the_command_line(
    checkpoint: Callable[[str], Path], text_file: Path, tmp_path: Path
) -> None:
    def run(*args: object) -> Any:
        result = CliRunner().invoke(app, [*map(str, args), "--json"])
        return result.exit_code, json.loads(result.stdout)

    out = tmp_path / "tuned"
    training = ("--corpus", text_file, "--steps", 4, "--tokens-per-step", 64, "--out", out)
    code, facts = run("tune-lens", checkpoint("llama"), *training, "--sequence-length", 32)
    assert code == 0
    assert facts["settings"]["n_steps"] == 4
    report = ("--prompt", PROMPT, "--tuned", out, "--out", tmp_path / "report")
    code, value = run("lens", checkpoint("llama"), *report)
    assert code == 0
    assert value["lens"] == "tuned lens"
    assert {row["stream"] for row in value["rows"]} == {"resid_pre", "resid_post"}
    # Beside it, what the logit lens says.
    assert len(value["logit_lens"]) == 5
    assert "KL(final ‖ logit lens)" in (tmp_path / "report" / "report.html").read_text()

    code, error = run("lens", checkpoint("qwen2"), "--prompt", PROMPT, "--tuned", out)
    assert (code, error["setting"]) == (2, "tuned")
    code, error = run("tune-lens", checkpoint("llama"), *training)
    assert (code, error["setting"]) == (2, "force")
