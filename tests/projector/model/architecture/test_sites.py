"""A site that is registered, and how it is found, serve every model and message."""

from __future__ import annotations

import pytest

from projector.model.architecture.finding import find_architecture
from projector.model.architecture.sites import FINDERS, Anatomy, Place
from projector.model.capture import Tap
from projector.sites import SITES, Site
from tests.families import MIXTURES, N_HIDDEN, N_LAYERS, build
from tests.refused import refused


def _mlp_pre(found: Anatomy) -> Place | str:
    if found.mlp is None:
        return "no MLP reads anything here"
    return Place(Tap(found.mlp.inputs[0].module, "input"), found.mlp.inputs[0].n_inputs)


@pytest.fixture
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SITES, "mlp_pre", Site("mlp_pre", "MLP input", "What it reads."))
    monkeypatch.setitem(FINDERS, "mlp_pre", _mlp_pre)


def test_every_site_has_a_record_and_is_found() -> None:
    assert set(SITES) == set(FINDERS)


@pytest.mark.usefixtures("_registered")
def test_a_new_site_is_one_record_and_one_function() -> None:
    architecture = find_architecture(build("llama"))
    assert architecture.choose_sites(["mlp_pre"]) == (["mlp_pre"], {})
    taps = architecture.taps(["mlp_pre"], [0, 1])
    assert list(taps) == [(layer, "mlp_pre") for layer in range(N_LAYERS)]
    block = architecture.blocks[0]
    assert block.mlp is not None
    assert taps[0, "mlp_pre"] == Tap(block.mlp.inputs[0].module, "input")
    assert block.widths["mlp_pre"] == N_HIDDEN
    with refused("sites", "mlp_pre", "MLP"):
        find_architecture(build(next(iter(MIXTURES)))).choose_sites(["mlp_pre"])


def test_a_site_that_is_found_nowhere_is_missing_with_a_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(SITES, "odd", Site("odd", "odd ones", "What is odd."))
    with refused("sites", "odd"):
        find_architecture(build("llama")).choose_sites(["odd"])
