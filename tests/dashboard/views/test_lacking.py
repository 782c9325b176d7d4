"""Projections and models that lack something, or are damaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dashboard.prompts import Prompt, store
from dashboard.state.store import stored_prompts
from projector.model.hashing import hash_checkpoint
from projector.projection.importing import import_checkpoint
from projector.projection.overview import FACTS_FILE
from projector.projection.projection import Projection
from tests.dashboard.conftest import DECODER, GPT2, Open
from tests.dashboard.pages import (
    NEURON,
    PAGES,
    decoded,
    errors,
    maps_of,
)
from tests.families import build
from tests.projections import Change, edit
from tests.pruning.test_preparing import fit
from tests.refused import lacking


@pytest.mark.parametrize("page", PAGES)
def test_a_projection_without_statistics_says_what_it_lacks(
    page: str, copied: Callable[..., Path], start: Open
) -> None:
    own = copied(DECODER, "models")
    (own / DECODER / "statistics.safetensors").unlink()
    prompt = store(Prompt("kalo mi", 2), stored_prompts())
    at = start(
        own, page, projection=DECODER, layer=1, site="mlp_post", neuron=NEURON, prompt=prompt
    ).run()
    expected = 1 if page in ("neuron", "heatmap") else 0
    assert len(errors(at)) == expected
    if expected:
        assert "statistics" in errors(at)[0]
    if page == "map":
        for color in ("mean", "importance"):
            at.selectbox(key="map colour").select(color).run()
            (error,) = errors(at)
            assert "statistics" in error
        at.selectbox(key="map colour").select("dead").run()
        assert errors(at) == []
    if page == "poles":
        assert at.metric[0].value.isdecimal()
        at.selectbox(key="pole space").select("correlation").run()
        (error,) = errors(at)
        assert "statistics" in error


def test_dead_and_broken_neurons_are_told(
    copied: Callable[..., Path], start: Open, checkpoint: Callable[[str], Path], text_file: Path
) -> None:
    own = copied("models")
    folder = own / "models" / DECODER
    model = build(DECODER)
    with torch.no_grad():
        up = model.model.layers[1].mlp.up_proj.weight
        up[5] = 0
        up[9] = torch.inf
        model.model.layers[1].mlp.down_proj.weight[:, 9] = 0
    model.save_pretrained(folder)
    fit(folder, text_file, own / DECODER, "--sites", "mlp_post")
    figures = Projection.load(own / DECODER).figures(1, "mlp_post")
    assert list(figures.dead_neurons) == [5]
    assert list(figures.nonfinite_neurons) == [9]
    for neuron, says in ((5, "dead"), (9, "finite")):
        params = {"projection": DECODER, "layer": 1, "site": "mlp_post", "neuron": neuron}
        at = start(own, "neuron", **params).run()
        assert errors(at) == []
        (warning,) = at.warning
        assert says in warning.value
    at = start(own, "map", projection=DECODER, layer=1, site="mlp_post").run()
    at.selectbox(key="map colour").select("dead").run()
    assert errors(at) == []
    values = decoded(maps_of(at)[0]["panels"][0]["values"], np.uint8, 40)
    assert np.flatnonzero(values == 0).tolist() == [5, 9]


def test_a_layer_in_which_nothing_varies_is_told(
    copied: Callable[..., Path], start: Open, text_file: Path
) -> None:
    own = copied("models")
    folder = own / "models" / DECODER
    model = build(DECODER)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight.zero_()
    model.save_pretrained(folder)
    fit(folder, text_file, own / DECODER, "--sites", "mlp_post")
    for page in PAGES:
        params = {"projection": DECODER, "layer": 1, "site": "mlp_post", "neuron": NEURON}
        at = start(own, page, **params).run()
        assert len(errors(at)) == (page == "heatmap"), page
        if page == "heatmap":
            assert "varies" in errors(at)[0]


def test_positions_trained_elsewhere_are_shown(
    copied: Callable[..., Path], start: Open, tmp_path: Path
) -> None:
    own = copied("models")
    tensors = {
        f"model.layers.{layer}.{part}.neuron_projections": torch.randn(24, 3)
        for layer in range(2)
        for part in ("mlp", "self_attn")
    }
    save_file(tensors, tmp_path / "positions.safetensors")
    model = own / "models" / DECODER
    import_checkpoint(tmp_path / "positions.safetensors", str(model)).save(own / "imported")
    prompt = store(Prompt("kalo mi", 2), stored_prompts())
    for page in PAGES:
        at = start(own, page, projection="imported", neuron=NEURON, prompt=prompt).run()
        expected = 1 if page in ("neuron", "heatmap") else 0
        assert len(errors(at)) == expected, page
        assert all("statistics" in error for error in errors(at))


def damaged(name: str) -> Callable[[Path], object]:
    """What is done to a projection."""

    def edited(**changes: Change) -> Callable[[Path], object]:
        return lambda folder: edit(folder, **changes)

    positions = "layouts/stress-3d.safetensors"
    return {
        "not JSON": lambda folder: (folder / FACTS_FILE).write_text("{"),
        "cut short": lambda folder: (folder / FACTS_FILE).write_bytes(
            (folder / FACTS_FILE).read_bytes()[:-20]
        ),
        "other facts": lambda folder: (folder / FACTS_FILE).write_text(
            (folder / FACTS_FILE).read_text() + " "
        ),
        "no positions": lambda folder: (folder / positions).unlink(),
        "cut positions": lambda folder: (folder / positions).write_bytes(
            (folder / positions).read_bytes()[:-9]
        ),
        "no model": edited(facts=lambda facts: facts.update(model=None)),
        "no hash": edited(facts=lambda facts: facts["model"].pop("sha256")),
        "no maps": edited(facts=lambda facts: facts.update(layers=[])),
        "odd corpus": edited(facts=lambda facts: facts.update(corpus={"source": 3})),
        "no objective": edited(layout=lambda layout: layout["settings"].pop("objective")),
        "odd neurons": edited(
            facts=lambda facts: facts["maps"]["layers.1.mlp_post"].update(dead_neurons=None)
        ),
    }[name]


@pytest.mark.parametrize(
    "what",
    ["not JSON", "cut short", "other facts", "no positions", "cut positions", "no model",
     "no hash", "no maps", "odd corpus", "no objective", "odd neurons"],
)  # fmt: skip
def test_a_damaged_projection_is_said_and_another_can_be_chosen(
    what: str, copied: Callable[..., Path], start: Open
) -> None:
    own = copied(DECODER, GPT2)
    damaged(what)(own / DECODER)
    at = start(own, "map", projection=DECODER, layer=1, site="mlp_post").run()
    (error,) = errors(at)
    assert str(own / DECODER) in error
    # It is no empty folder.
    assert [each.value for each in at.title] == []
    assert not [each for each in at.button if each.key == "fit now"]
    at.sidebar.selectbox(key="choose projection").select(GPT2).run()
    assert errors(at) == []
    assert "Layer" in at.title[0].value


@pytest.mark.parametrize("page", PAGES)
def test_a_projection_of_another_model_says_so(
    page: str, root: Path, start: Open, tokenizer: Any, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    build(DECODER, seed=1).save_pretrained(other)
    tokenizer.save_pretrained(other)
    prompt = store(Prompt("kalo mi", 2), stored_prompts())
    params = {"projection": DECODER, "layer": 1, "site": "mlp_post", "neuron": NEURON}
    at = start(root, page, "--model", str(other), prompt=prompt, **params, model=str(other)).run()
    # Pages that need no model go on without one.
    asks = {"neuron": 1, "prompt": 1, "lens": 1, "heads": 1, "layer-time": 1}
    assert len(errors(at)) == asks.get(page, 0)
    if page == "map":
        at.selectbox(key="map colour").select("importance").run()
    for error in errors(at):
        assert lacking(error, other, hash_checkpoint(other)[:12]) == []
    if page in ("map", *asks):
        assert len(errors(at)) == 1
        # The right one can be chosen at the side.
        at.sidebar.selectbox(key="choose model").select(f"models/{DECODER}").run()
        assert errors(at) == []


def test_a_model_that_is_not_there_is_said(copied: Callable[..., Path], start: Open) -> None:
    own = copied(DECODER)
    prompt = store(Prompt("kalo mi", 2), stored_prompts())
    at = start(own, "prompt", "--model", "no/such", projection=DECODER, prompt=prompt).run()
    (error,) = errors(at)
    assert "no/such" in error
