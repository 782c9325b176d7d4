"""Projections of format version 1 on every page, with their model and without it."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dashboard.prompts import Prompt, store
from dashboard.state.store import stored_prompts
from projector.projection.overview import FACTS_FILE
from projector.projection.projection import Projection
from projector.storage.tensors import TensorFile, write_tensors
from tests.dashboard.conftest import DECODER, Open
from tests.dashboard.pages import NEURON, PAGES, decoded, errors, maps_of

GOLDEN = Path(__file__).parents[2] / "golden" / "projection-v1"


def give_model(folder: Path, sha256: str) -> None:
    """Say that a projection is of other weights, in all files that belong to it."""
    path = folder / FACTS_FILE
    text = path.read_text(encoding="utf-8")
    before = hashlib.sha256(text.encode()).hexdigest()
    text = text.replace(Projection.load(folder).facts.model.sha256, sha256)
    path.write_text(text, encoding="utf-8")
    after = hashlib.sha256(text.encode()).hexdigest()
    for each in folder.glob("*.safetensors"):
        # What is read is mapped from the file.
        tensors = {name: tensor.clone() for name, tensor in TensorFile(each).items()}
        write_tensors(each, tensors, {"projection": after})
    for each in folder.glob("poles.json"):
        each.write_text(each.read_text().replace(before, after), encoding="utf-8")


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("has_model", [True, False], ids=["model", "no-model"])
@pytest.mark.parametrize("kind", ["stress", "linear"])
def test_a_projection_of_version_1_is_shown(
    kind: str,
    has_model: bool,
    page: str,
    copied: Callable[..., Path],
    root: Path,
    start: Open,
) -> None:
    own = copied(*(["models"] if has_model else []))
    folder = Path(shutil.copytree(GOLDEN / kind, own / "old"))
    if has_model:
        give_model(folder, Projection.load(root / DECODER).facts.model.sha256)
    prompt = store(Prompt("kalo mi", 2), stored_prompts())
    at = start(own, page, projection="old", neuron=NEURON, prompt=prompt).run()
    assert len(at.title) == 1
    told = errors(at)
    if kind == "linear" and page in ("neuron", "heatmap"):
        assert "statistics" in told.pop(0)
    if not has_model and page in ("neuron", "prompt", "lens", "heads", "layer-time"):
        assert "qwen2" in told.pop(0)
    assert told == []
    if page == "map":
        expected = Projection.load(GOLDEN / kind)
        layer, site = expected.maps[0]
        positions = expected.positions(layer, site).numpy()
        # Where its poles were found meanwhile, the map was sent before.
        sent = maps_of(at)[0]["panels"][0]["positions"]
        if sent is not None:
            points = decoded(sent, np.float32, len(positions), 3)
            np.testing.assert_array_equal(points[:, : positions.shape[1]], positions)
