"""An autoencoder that was trained for one picture serves the next one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dashboard.guest import Guest
from dashboard.layer_time.keeping import KeepingTrainer, is_kept, training_id
from dashboard.layer_time.orders import LayerTimeOrder, run_order
from dashboard.layer_time.pictures import Picture
from dashboard.prompts import Prompt
from projector.errors import UserError
from projector.progress import Silent
from projector.residual.particles.autoencoder.artifact import JSON_FILE, TENSOR_FILE, Trained
from projector.residual.particles.autoencoder.training import train_autoencoder
from projector.residual.particles.settings import ParticleSettings
from tests.dashboard.conftest import DECODER, GPT2

SHA256 = "a" * 64


@pytest.fixture
def settings(text_file: Path) -> ParticleSettings:
    return ParticleSettings(
        particles="autoencoder",
        reduction="pca",
        corpus=str(text_file),
        max_tokens=300,
        n_particles=6,
        width=4,
        steps=2,
    )


class _Trainings(list[dict[str, Any]]):
    """Trains, and notes what it was asked for."""

    def __call__(self, *args: Any, **settings: Any) -> Trained:
        self.append(settings)
        return train_autoencoder(*args, **settings)


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> _Trainings:
    found = _Trainings()
    place = "projector.residual.particles.autoencoder.training.train_autoencoder"
    monkeypatch.setattr(place, found)
    return found


def test_the_next_picture_trains_nothing(
    guest: Callable[[str], Guest],
    settings: ParticleSettings,
    trainings: _Trainings,
    tmp_path: Path,
) -> None:
    subject = guest(DECODER).subject

    def run(text: str, folder: Path | None, **changed: Any) -> Picture:
        order = LayerTimeOrder((Prompt(text),), replace(settings, **changed), folder)
        # As a process hears and tells it.
        heard = LayerTimeOrder.of_record(json.loads(json.dumps(order.to_record())))
        assert heard.kept_in == folder
        return Picture.of_record(json.loads(json.dumps(run_order(subject, heard, Silent()))))

    folder = tmp_path / "cache" / "one"
    first = run("kalo mi tenra", folder)
    assert not first.has_old_autoencoder
    assert is_kept(folder)
    again = run("kalo mi tenra", folder)
    assert again.has_old_autoencoder
    assert again.report == first.report
    other = run("kalo so", folder, dim=2, n_lines=1)
    assert other.has_old_autoencoder
    assert other.report["autoencoder"] == first.report["autoencoder"]
    assert len(trainings) == 1
    # Without a folder nothing is kept.
    assert not run("kalo mi tenra", None).has_old_autoencoder
    assert len(trainings) == 2


def test_what_can_not_be_read_is_trained_anew(
    guest: Callable[[str], Guest],
    settings: ParticleSettings,
    tmp_path: Path,
) -> None:
    trainings = _Trainings()
    keeping = KeepingTrainer(tmp_path / "one", trainings)
    asked = {name: getattr(settings, name) for name in ("n_particles", "width", "steps")}
    asked["max_tokens"] = 300

    def get(family: str = DECODER) -> Trained:
        return keeping(guest(family).subject, settings.source, **asked)

    get()
    damages: list[Callable[[Path], object]] = [
        lambda folder: (folder / TENSOR_FILE).write_bytes(b"damaged"),
        lambda folder: (folder / TENSOR_FILE).unlink(),
        lambda folder: (folder / JSON_FILE).write_text('{"format": "autoencoder"}'),
    ]
    for n, damage in enumerate(damages, 2):
        damage(tmp_path / "one")
        get()
        assert (len(trainings), keeping.has_loaded) == (n, False)
        get()
        assert (len(trainings), keeping.has_loaded) == (n, True)
    # Another model's.
    found = get(GPT2)
    assert not keeping.has_loaded
    assert found.facts["model"]["sha256"] == guest(GPT2).subject.loaded.weights_sha256
    # A file lies where the folder should be: the autoencoder is there all the same.
    (tmp_path / "file").write_text("mine")
    keeping = KeepingTrainer(tmp_path / "file" / "one", trainings)
    assert isinstance(get(), Trained)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_failed_training_keeps_nothing(
    guest: Callable[[str], Guest], settings: ParticleSettings, tmp_path: Path
) -> None:
    keeping = KeepingTrainer(tmp_path / "one", train_autoencoder)
    with pytest.raises(UserError) as error:
        keeping(guest(DECODER).subject, settings.source, n_particles=6, width=4096, steps=2)
    assert error.value.setting == "width"
    assert not (tmp_path / "one").exists()


def test_only_what_changes_the_training_counts(settings: ParticleSettings, text_file: Path) -> None:
    def told(sha256: str = SHA256, dtype: str = "float32", **changed: Any) -> str | None:
        return training_id(replace(settings, **changed), sha256, dtype)

    usual = told()
    assert usual is not None
    same: list[dict[str, Any]] = [
        {"dim": 2},
        {"reduction": "umap", "neighbours": 5},
        {"n_lines": 0},
        {"layers": (1,)},
    ]
    assert {told(**each) for each in same} == {usual}
    others: list[dict[str, Any]] = [
        {name: 5} for name in ("max_tokens", "n_particles", "width", "steps", "seed")
    ]
    found = [told(**each) for each in (*others, {"corpus": "stdlib"})]
    found += [told("b" * 64), told(dtype="bfloat16"), usual]
    assert len(set(found)) == len(found)
    assert training_id(ParticleSettings(), SHA256, "float32") is None
    saved = ParticleSettings(particles="autoencoder", autoencoder=Path("somewhere"))
    assert training_id(saved, SHA256, "float32") is None


def test_a_text_that_was_changed_is_another_one(settings: ParticleSettings, tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("kalo mi")
        os.utime(tmp_path / name, (1, 1))
    found = []
    for change in (lambda: None, lambda: os.utime(tmp_path / "b.txt", (2, 2))):
        change()
        for corpus in (tmp_path, tmp_path / "b.txt"):
            asked = replace(settings, corpus=str(corpus))
            assert training_id(asked, SHA256, "auto") == training_id(asked, SHA256, "auto")
            found.append(training_id(asked, SHA256, "auto"))
    assert len(set(found)) == len(found)
