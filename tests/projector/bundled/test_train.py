"""The training program: what it reads, that it resumes, that it learns."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from projector.bundled import train as room
from projector.bundled.train import (
    Recipe,
    bits_per_byte,
    build_model,
    learning_rate_factor,
    shift_right,
    token_stream,
    train,
    windows,
)
from projector.model.loading import load_model
from tests.conftest import make_text

TINY = Recipe(
    n_layers=2,
    n_hidden=16,
    n_neurons=32,
    n_heads=2,
    n_key_value_heads=1,
    n_vocabulary=300,
    n_context=16,
    batch_size=4,
    n_steps=12,
    n_warmup_steps=2,
)


@pytest.fixture
def _made_up_library(monkeypatch: pytest.MonkeyPatch) -> None:
    def modules(split: str) -> Iterator[tuple[str, str]]:
        seed = 0 if split == "train" else 1
        for i in range(4):
            folder = "test/" if i % 2 else ""
            yield f"{folder}module{i}.py", make_text(300, seed=10 * seed + i)

    monkeypatch.setattr(room, "stdlib_modules", modules)


@pytest.mark.usefixtures("_made_up_library")
def test_a_stopped_training_goes_on_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(TINY, tmp_path / "straight", "cpu", compiled=False)

    class Stop(Exception):
        pass

    n_windows = 0

    def stop_after_seven(*arguments: object) -> torch.Tensor:
        nonlocal n_windows
        n_windows += 1
        if n_windows > 7:
            raise Stop
        return windows(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(room, "windows", stop_after_seven)
    with pytest.raises(Stop):
        train(TINY, tmp_path / "stopped", "cpu", compiled=False, save_every_s=0.0)
    monkeypatch.setattr(room, "windows", windows)
    train(TINY, tmp_path / "stopped", "cpu", compiled=False)
    for name in ("model.safetensors", "tokenizer.json", "training.json"):
        straight, resumed = (tmp_path / run / name for run in ("straight", "stopped"))
        assert straight.read_bytes() == resumed.read_bytes(), name


@pytest.mark.usefixtures("_made_up_library")
def test_training_learns_and_tells_what_it_measured(tmp_path: Path) -> None:
    out = train(replace(TINY, n_steps=150), tmp_path / "out", "cpu", compiled=False)
    measured = json.loads((out / "training.json").read_text())
    loaded = load_model(str(out), with_head=True)
    held_out = [text for _, text in room.stdlib_modules("heldout")]
    again = bits_per_byte(loaded.model, iter(held_out), loaded.tokenizer, TINY.n_context)
    assert again == pytest.approx(measured["bits_per_byte_heldout"], rel=1e-5)
    untrained = build_model(TINY, 0)
    before = bits_per_byte(untrained, iter(held_out), loaded.tokenizer, TINY.n_context)
    assert again < 0.8 * before


def test_bits_per_byte_of_a_model_that_knows_nothing(tokenizer: object) -> None:
    # All logits equal: every token costs log2(vocabulary) bits, whatever the windows.
    model = build_model(replace(TINY, n_vocabulary=320), 0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    text = make_text(100)
    stream, n_bytes = token_stream(iter([text]), tokenizer)  # type: ignore[arg-type]
    assert n_bytes == len(text.encode())
    expected = stream.numel() * math.log2(320) / n_bytes
    for n_context in (16, 7):
        found = bits_per_byte(model, iter([text]), tokenizer, n_context)  # type: ignore[arg-type]
        assert found == pytest.approx(expected, rel=1e-5)


def test_an_epoch_shows_every_window_once() -> None:
    stream = torch.arange(16 * 41 + 5)
    n_per_epoch = (stream.numel() - 16) // 16 // 4
    seen = torch.cat([windows(stream, TINY, step) for step in range(n_per_epoch)])
    assert seen.shape == (n_per_epoch * 4, 16)
    assert seen.unique().numel() == seen.numel()
    next_epoch = windows(stream, TINY, n_per_epoch)
    assert not torch.equal(next_epoch, windows(stream, TINY, 0))
    assert torch.equal(windows(stream, TINY, 3), windows(stream, TINY, 3))


def test_targets_are_shifted_by_one() -> None:
    assert shift_right(torch.tensor([[5, 6, 7]]), 0).tolist() == [[0, 5, 6]]


def test_learning_rate_warms_up_and_ends_at_zero() -> None:
    factors = [learning_rate_factor(step, TINY) for step in range(TINY.n_steps)]
    assert factors[:2] == [0.5, 1.0]
    assert factors[2] == 1
    assert all(a >= b for a, b in pairwise(factors[2:]))
    assert factors[-1] < 0.05


def test_the_tokenizer_gives_back_any_text(tokenizer: object) -> None:
    text = "def f(x):\n\treturn 'ä € 𝄞'  # \r\n"
    ids = tokenizer(text)["input_ids"]  # type: ignore[operator]
    assert ids[0] == 0
    assert tokenizer.decode(ids, skip_special_tokens=True) == text  # type: ignore[attr-defined]
