"""Poles that a process of their own finds: the same ones, kept, and ended when nobody waits."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch

from dashboard.pole_finding import find_apart
from projector.errors import UserError
from projector.projection.projection import Projection
from pruning.poles.files import POLES_FILE
from pruning.poles.finding import find_poles
from pruning.poles.poles import PoleSettings
from tests.dashboard.conftest import DECODER

Copied = Callable[..., Path]


def _nothing() -> None:
    pass


def test_they_are_those_that_are_found_here(copied: Copied) -> None:
    folder = copied(DECODER) / DECODER
    settings = PoleSettings("abs-correlation", 2, None, "leaf", 0.125)
    found = find_apart(folder, 1, "attn_out", settings, _nothing)
    expected = find_poles(Projection.load(folder), 1, "attn_out", settings)
    assert torch.equal(found.labels, expected.labels)
    assert found.sizes == expected.sizes
    assert found.settings == settings
    assert (folder / POLES_FILE).exists()


def test_what_can_not_be_is_said(copied: Copied) -> None:
    folder = copied(DECODER) / DECODER
    (folder / POLES_FILE).write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match=r"poles\.json.*is damaged"):
        find_apart(folder, 0, "mlp_post", PoleSettings(), _nothing)


def test_it_ends_when_nobody_waits(copied: Copied) -> None:
    folder = copied(DECODER) / DECODER

    def leave() -> None:
        raise KeyboardInterrupt

    before = set(psutil.Process().children(recursive=True))
    with pytest.raises(KeyboardInterrupt):
        find_apart(folder, 0, "mlp_post", PoleSettings(), leave)
    time.sleep(0.1)
    assert set(psutil.Process().children(recursive=True)) <= before
    assert not (folder / POLES_FILE).exists()
