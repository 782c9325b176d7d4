"""The model that ships: what its card says is so."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path

import pytest

from projector.bundled.train import Recipe, bits_per_byte
from projector.corpus.readers.stdlib import stdlib_modules
from projector.model.architecture.finding import find_architecture
from projector.model.loading import BUNDLED_FOLDER, LoadedModel, load_model
from projector.processor import in_threads


@pytest.fixture(scope="module")
def bundled() -> LoadedModel:
    return load_model(with_head=True)


def is_test(module_path: str) -> bool:
    return bool({"test", "tests"} & set(module_path.split("/")[:-1]))


def test_it_is_what_the_package_promises(bundled: LoadedModel) -> None:
    assert bundled.identifier == "bundled"
    assert bundled.model.config.model_type == "qwen2"
    n_parameters = sum(p.numel() for p in bundled.model.parameters())
    assert 4e6 <= n_parameters <= 6e6
    assert len(bundled.tokenizer) == 4096
    weights = BUNDLED_FOLDER / "model.safetensors"
    assert weights.stat().st_size < 12e6
    architecture = find_architecture(bundled.model.base_model)
    assert [block.widths["mlp_post"] for block in architecture.blocks] == [768] * 6


def test_the_card_tells_what_was_measured() -> None:
    measured = json.loads((BUNDLED_FOLDER / "training.json").read_text())
    card = (BUNDLED_FOLDER / "README.md").read_text(encoding="utf-8")
    for name in ("bits_per_byte_heldout", "bits_per_byte_heldout_outside_tests"):
        assert f"{measured[name]:.3f}" in card
    assert f"{measured['parameters']:,}" in card
    # The program as it stands is the one that made it.
    assert Recipe(**measured["recipe"]) == Recipe()


def test_nothing_in_the_folder_is_pickled() -> None:
    kinds = {path.suffix for path in Path(BUNDLED_FOLDER).iterdir() if path.is_file()}
    assert kinds <= {".py", ".json", ".safetensors", ".md"}


@pytest.fixture
def _all_threads() -> Iterator[None]:
    with in_threads(min(8, os.cpu_count() or 1)):
        yield


def test_the_bar_over_some_held_out_modules(bundled: LoadedModel) -> None:
    held_out = list(stdlib_modules("heldout"))[::12]
    assert len(held_out) > 5
    assert bits_per_byte(bundled.model, (t for _, t in held_out), bundled.tokenizer) < 1.13


@pytest.mark.thorough
@pytest.mark.usefixtures("_all_threads")
def test_the_bar_over_all_held_out_modules(bundled: LoadedModel) -> None:
    measured = json.loads((BUNDLED_FOLDER / "training.json").read_text())
    held_out = list(stdlib_modules("heldout"))
    everything = bits_per_byte(bundled.model, (t for _, t in held_out), bundled.tokenizer)
    outside = bits_per_byte(
        bundled.model, (t for p, t in held_out if not is_test(p)), bundled.tokenizer
    )
    assert everything <= 0.875
    assert outside <= 0.963
    if platform.python_version() == measured["python"]:
        assert everything == pytest.approx(measured["bits_per_byte_heldout"], abs=0.002)
        assert outside == pytest.approx(measured["bits_per_byte_heldout_outside_tests"], abs=0.002)
