"""Poles that a process of their own finds: the same ones, kept, and ended when nobody waits."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

from dashboard.background.pole_finding import find_apart
from projector.errors import UserError, named
from projector.projection.projection import Projection
from pruning.poles.files import poles_file
from pruning.poles.finding import find_poles
from pruning.poles.poles import PoleSettings
from tests.dashboard.conftest import DECODER

Copied = Callable[..., Path]


def _nothing() -> None:
    pass


def test_they_are_those_that_are_found_here(copied: Copied) -> None:
    folder = copied(DECODER) / DECODER
    settings = PoleSettings("abs-correlation", 2, None, "leaf", 0.125)
    layout = Projection.load(folder).layout_name()
    found = find_apart(folder, 1, "attn_out", layout, settings, _nothing)
    expected = find_poles(Projection.load(folder), 1, "attn_out", settings)
    assert torch.equal(found.labels, expected.labels)
    assert found.sizes == expected.sizes
    assert found.settings == settings
    assert (folder / poles_file(settings)).exists()


def test_they_are_those_of_the_layout(copied: Copied) -> None:
    folder = copied(DECODER) / DECODER
    loaded = Projection.load(folder)
    first, placed = next(iter(loaded.layouts.items()))
    positions = {name: each.roll(7, 0) for name, each in placed.positions.items()}
    other = replace(placed, settings=replace(placed.settings, absolute=True), positions=positions)
    name = other.settings.name
    replace(loaded, layouts={first: placed, name: other}).save(folder, force=True)
    settings = PoleSettings("positions", 2, None, "leaf", 0.0)
    found = find_apart(folder, 1, "mlp_post", name, settings, _nothing)
    expected = find_poles(Projection.load(folder), 1, "mlp_post", settings, name)
    assert torch.equal(found.labels, expected.labels)
    assert (folder / poles_file(settings, name)).exists()
    assert not (folder / poles_file(settings)).exists()


class Ended:
    """A process that has printed something, and failed."""

    def __init__(self, said: bytes, returncode: int) -> None:
        self.said, self.returncode = said, returncode

    def communicate(self, timeout: float = 0) -> tuple[bytes, None]:
        return self.said, None

    def poll(self) -> int:
        return self.returncode


@pytest.mark.parametrize(
    ("said", "status", "names"),
    [
        (json.dumps(UserError(f"{named('epsilon')} odd").to_record()), 2, "epsilon odd"),
        ('{"error": "Permission denied"}', 2, "^Permission denied$"),
        ("", -9, "killed"),
        ("Killed", -9, "killed"),
        ("", 3, r"\b3\b"),
        ("[]", 2, r"\b2\b"),
    ],
)
def test_what_can_not_be_is_said(
    said: str, status: int, names: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: Ended(said.encode(), status))
    with pytest.raises(UserError, match=names):
        find_apart(tmp_path, 0, "mlp_post", "stress-3d", PoleSettings(), _nothing)


def test_it_ends_when_nobody_waits(copied: Copied) -> None:
    folder = copied(DECODER) / DECODER

    def leave() -> None:
        raise KeyboardInterrupt

    before = set(psutil.Process().children(recursive=True))
    with pytest.raises(KeyboardInterrupt):
        find_apart(folder, 0, "mlp_post", "stress-3d", PoleSettings(), leave)
    time.sleep(0.1)
    assert set(psutil.Process().children(recursive=True)) <= before
    assert not (folder / poles_file(PoleSettings())).exists()
