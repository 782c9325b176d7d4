"""Trained positions are opened from the app."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

from dashboard.state.loading import forget_folders
from projector.projection.projection import Projection
from tests.dashboard.conftest import DECODER, Open
from tests.dashboard.pages import errors, link


def checkpoint(folder: Path, n_neurons: int) -> None:
    folder.mkdir()
    positions = {
        f"model.layers.{layer}.mlp.neuron_projections": torch.randn(n_neurons, 3)
        for layer in (0, 1)
    }
    save_file(positions, folder / "model.safetensors")


def test_trained_positions_are_opened_from_the_app(
    copied: Callable[..., Path], start: Open
) -> None:
    own = copied(DECODER, "models")
    at = start(own, "overview", projection=DECODER).run()
    assert not [each for each in at.button if each.key == "import"]
    checkpoint(own / "trained", 24)
    checkpoint(own / "wrong", 23)
    forget_folders()
    at = start(own, "overview", projection=DECODER).run()
    assert at.selectbox(key="import checkpoint").options == ["trained", "wrong"]
    at.selectbox(key="import checkpoint").select("wrong")
    at.selectbox(key="import model").select(f"models/{DECODER}")
    at.button(key="import").click().run()
    (error,) = errors(at)
    assert "23 positions" in error
    assert not (own / "wrong-positions").exists()
    at.selectbox(key="import checkpoint").select("trained")
    at.button(key="import").click().run()
    assert errors(at) == []
    assert link(at)["projection"] == "trained-positions"
    assert Projection.load(own / "trained-positions").positions(1, "mlp_out").shape == (24, 3)
