"""What is kept on disk between runs of the app, and that nothing of the user's goes for it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from dashboard.prompts import Prompt, recall, store
from dashboard.state.store import (
    autoencoder_folder,
    examples_name,
    stored_autoencoders,
    stored_examples,
    stored_prompts,
)

SHA256 = "0123456789abcdef" * 4


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRANSFORMER_PROJECTOR_CACHE", str(tmp_path))
    return tmp_path


def test_examples_make_no_prompt_go() -> None:
    """A prompt that is gone breaks every link that names it."""
    prompt = Prompt("kalo mi", 3)
    store(prompt, stored_prompts())
    os.utime(stored_prompts().files()[0], (1, 1))
    few = replace(stored_examples(), most_bytes=10)
    for layer in (0, 11):
        with few.writing(examples_name(SHA256, layer, "mlp_post")) as path:
            path.write_bytes(b"x" * 100)
    assert [path.name for path in few.files()] == ["0123456789abcdef-11-mlp_post.safetensors"]
    assert recall(prompt.id, stored_prompts()) == prompt


def test_prompts_have_a_bound_of_their_own() -> None:
    few = replace(stored_prompts(), most_bytes=200)
    for k in range(9):
        store(Prompt(f"kalo {k}"), few)
    assert 0 < sum(path.stat().st_size for path in few.files()) <= 200


def test_the_autoencoder_that_was_used_last_stays() -> None:
    old, new = (f"{k:016x}" for k in range(2))
    for training in (old, new):
        path = autoencoder_folder(training) / "autoencoder.safetensors"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x" * 100)
        os.utime(path, (int(training, 16) + 1, 1))
    autoencoder_folder(old)
    replace(stored_autoencoders(), most_bytes=100).trim()
    (kept,) = stored_autoencoders().files()
    assert kept.parent.name == old


def test_files_of_other_names_stay(place: Path) -> None:
    """Whatever folder the user named for this."""
    theirs = [
        place / "prompts" / "notes.json",
        place / "prompts" / "0123456789abcdef0.json",
        place / "prompts" / ".notes.json.1.1.partial",
        place / "examples" / "model.safetensors",
        place / "examples" / "model-3-mlp.safetensors",
        place / "examples" / "0123456789abcdef.safetensors",
        place / "autoencoders" / "mine" / "autoencoder.safetensors",
    ]
    for path in theirs:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 1000)
        os.utime(path, (1, 1))
    for folder in (stored_prompts(), stored_examples(), stored_autoencoders()):
        assert folder.files() == []
        replace(folder, most_bytes=0).trim()
    assert all(path.exists() for path in theirs)
