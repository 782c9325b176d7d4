"""What the sidebar shows, and what can be chosen there."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from streamlit.testing.v1 import AppTest

from dashboard.prompts import Prompt, store
from dashboard.state.shelf import model_room
from dashboard.state.store import stored_prompts
from projector.figures.axes import shown_axes
from projector.naming.search import search
from projector.projection.projection import Projection
from projector.sites import SITES
from pruning.poles.finding import find_poles
from pruning.poles.poles import PoleSettings
from tests.dashboard.conftest import DECODER, GPT2, Open
from tests.dashboard.pages import (
    GROUPING,
    NEURON,
    ask,
    decoded,
    errors,
    link,
    maps_of,
)


def test_what_is_chosen_at_the_side_is_shown(open_page: Open) -> None:
    at = open_page("map", neuron=NEURON, marked="1-2", token=2)
    at.sidebar.select_slider(key="choose layer").set_value(0).run()
    assert errors(at) == []
    assert "Layer 0" in at.title[0].value
    # Neuron 3 of another layer is another neuron.
    assert link(at) == {
        "projection": DECODER,
        "layer": "0",
        "site": "mlp_post",
        "token": "2",
    }
    at.sidebar.selectbox(key="choose site").select("attn_out").run()
    assert "attention output" in at.title[0].value
    at.sidebar.selectbox(key="choose projection").select(GPT2).run()
    assert errors(at) == []
    assert link(at)["projection"] == GPT2


def test_pages_take_a_site_s_names_from_its_record(
    open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = replace(SITES["mlp_post"], words="odd ones", short="odd", help="What is odd.")
    monkeypatch.setitem(SITES, "mlp_post", replace(record, beside=None))
    at = open_page("map", neuron=NEURON)
    assert re.sub(r"\\(.)", r"\1", at.title[0].value) == "Layer 1: odd ones"
    assert len(maps_of(at)) == 1
    chosen = at.sidebar.selectbox(key="choose site")
    assert "odd ones (mlp_post)" in chosen.options
    assert "- odd ones: What is odd." in chosen.help
    assert any("L1 odd N3" in each.value for each in at.markdown)


def test_the_sidebar_says_what_is_loaded_and_where(open_page: Open) -> None:
    model_room.clear()
    at = open_page("map")
    assert "on cpu" not in at.sidebar.caption[0].value
    at.selectbox(key="map colour").select("importance").run()
    assert errors(at) == []
    assert "on cpu" in at.sidebar.caption[0].value
    assert "seen" in at.sidebar.caption[0].value or "made" in at.sidebar.caption[0].value


def test_the_run_that_loads_the_model_says_so_in_the_sidebar(open_page: Open) -> None:
    model_room.clear()
    at = open_page("prompt")
    assert "on cpu" not in at.sidebar.caption[0].value
    at = ask(at, "A prompt", n_new=0)
    assert errors(at) == []
    assert "on cpu" in at.sidebar.caption[0].value


def test_a_local_model_is_found_below_the_roots(open_page: Open) -> None:
    at = open_page("neuron", neuron=NEURON)
    assert at.sidebar.selectbox(key="choose model").value == f"models/{DECODER}"
    assert errors(at) == []


def test_what_a_short_link_leaves_out_is_filled_in(root: Path, start: Open) -> None:
    short = {"projection": DECODER, "layer": 1, "pole": 0, "marked": "2-4", "grouping": GROUPING}
    at = start(root, "poles", **short).run()
    assert errors(at) == []
    assert link(at) == {name: str(value) for name, value in short.items()} | {"site": "mlp_post"}
    assert any(re.match(r"Pole 0(\\:|$)", each.value) for each in at.subheader)
    # Of another map than the link's its pole would be another one.
    at = start(root, "poles", **short | {"layer": 77}).run()
    assert errors(at) == []
    assert link(at) == {"projection": DECODER, "layer": "0", "site": "mlp_post"} | {
        "grouping": GROUPING
    }


def test_a_layout_is_chosen_and_shown_on_every_page(
    copied: Callable[..., Path], start: Open
) -> None:
    own = copied(DECODER, "models")
    folder = own / DECODER
    loaded = Projection.load(folder)
    first = loaded.layout_name()
    at = start(own, "map", projection=DECODER, layer=1, site="mlp_post").run()
    # Where there is one layout, there is nothing to choose.
    assert not [each for each in at.segmented_control if each.key == "layout"]
    # Another one, of five dimensions, of which the last is the widest.
    placed = loaded.layouts[first]
    positions = {}
    for name, each in placed.positions.items():
        generator = torch.Generator().manual_seed(len(positions))
        positions[name] = torch.randn(len(each), 5, generator=generator) * 0.01
        positions[name][:, 4] += torch.linspace(-1, 1, len(each))
    wide = replace(placed, settings=replace(placed.settings, dim=5), positions=positions)
    replace(loaded, layouts={first: placed, "stress-5d": wide}).save(folder, force=True)
    at = start(own, "map", projection=DECODER, layer=1, site="mlp_post").run()
    assert errors(at) == []
    assert at.segmented_control(key="layout").value == first
    assert "layout" not in link(at)
    at.segmented_control(key="layout").set_value("stress-5d").run()
    assert errors(at) == []
    assert link(at)["layout"] == "stress-5d"
    assert "5 dimensions" in at.sidebar.caption[0].value
    expected = shown_axes(positions["layers.1.mlp_post"]).numpy()
    assert expected.std(axis=0)[0] > 0.5
    prompt = store(Prompt("kalo mi", 0), stored_prompts())
    for page in ("map", "prompt"):
        at = start(own, page, **link(at) | {"prompt": prompt}).run()
        assert errors(at) == []
        (found,) = maps_of(at)
        points = decoded(found["panels"][0]["positions"], np.float32, 40, 3)
        np.testing.assert_allclose(points, expected, atol=1e-6)
        assert found["dim"] == 5
        assert at.segmented_control(key="layout").value == "stress-5d"
    # Poles of the map are the layout's own.
    at = start(own, "poles", **link(at) | {"grouping": "positions,2,leaf,0"}).run()
    assert errors(at) == []
    seen = replace(loaded, layouts={"stress-5d": wide})
    poles = find_poles(seen, 1, "mlp_post", PoleSettings("positions", 2, None, "leaf", 0.0))
    assert at.metric[0].value == str(len(poles.poles))
    at = start(own, "map", **link(at) | {"layout": "moon"}).run()
    (line,) = notes(at)
    assert "'moon'" in line
    assert "layout" not in link(at)
    assert at.segmented_control(key="layout").value == first


def notes(at: AppTest) -> list[str]:
    return [re.sub(r"\\(.)", r"\1", each.value) for each in at.warning]


@pytest.mark.parametrize(
    ("params", "said", "gone"),
    [
        ({"layer": 77}, ["no layer 77", "layer 0 is shown"], ("neuron",)),
        ({"layer": "x"}, ["layer 'x' can't be read", "layer 0"], ()),
        ({"neuron": 999}, ["neuron 999"], ("neuron",)),
        ({"site": "moon"}, ["no site 'moon'", "MLP neurons"], ()),
        ({"pole": 999, "grouping": GROUPING}, ["no pole 999"], ("pole",)),
        ({"grouping": "correlation,99"}, ["'correlation,99' can't be read"], ("grouping",)),
        ({"color": "plaid"}, ["no colouring 'plaid'"], ("color",)),
        ({"order": "sideways"}, ["no order 'sideways'", "Tree of groups"], ("order",)),
        ({"model": "models/moon"}, ["no model 'models/moon'"], ("model",)),
        ({"marked": "2-99"}, ["60 of the marked"], ()),
        ({"isolate": 500}, ["no neuron 500"], ("isolate",)),
        ({"layout": "moon"}, ["no layout 'moon'"], ("layout",)),
        (
            {"layer": 99, "neuron": 99999, "pole": 77, "color": "plaid"},
            ["no layer 99", "ignores the link's neuron and pole", "no colouring 'plaid'"],
            ("neuron", "pole", "color"),
        ),
    ],
)
def test_what_a_link_can_not_show_is_said_in_one_line(
    params: dict[str, object], said: list[str], gone: tuple[str, ...], open_page: Open
) -> None:
    at = open_page("map", **params)
    assert errors(at) == []
    (line,) = notes(at)
    assert all(part in line for part in said), line
    assert not set(gone) & set(link(at))
    # It is said once.
    at.run()
    assert notes(at) == []


def test_a_link_that_is_right_says_nothing(open_page: Open) -> None:
    at = open_page("map", neuron=NEURON, pole=0, grouping=GROUPING, color="mean", marked="2-4")
    assert (errors(at), notes(at)) == ([], [])
    assert link(at)["color"] == "mean"


def test_a_neuron_is_found_by_its_name(open_page: Open) -> None:
    at = open_page("map")
    at.sidebar.text_input(key="search").set_value("L0 N7").run()
    assert errors(at) == []
    assert (link(at)["layer"], link(at)["neuron"]) == ("0", "7")
    # What is selected later counts.
    at.sidebar.select_slider(key="choose layer").set_value(1).run()
    assert link(at)["layer"] == "1"
    assert "neuron" not in link(at)
    at.sidebar.text_input(key="search").set_value("L0 N999").run()
    assert any("neuron 999" in each.value for each in at.sidebar.caption)


def test_a_word_lists_what_fires_on_it(copied: Callable[..., Path], start: Open) -> None:
    own = copied(DECODER)
    projection = Projection.load(own / DECODER)
    at = start(own, "overview", projection=DECODER).run()
    at.sidebar.text_input(key="search").set_value("0.345").run()
    assert errors(at) == []
    assert "neuron" not in link(at)
    said = [each.value for each in at.sidebar.caption]
    if not projection.has_examples:
        assert any("projector fit" in each for each in said)
        return
    assert len(said) == 2, said
    results: list[str] = []
    for layer, site in projection.maps:
        examples = projection.examples(layer, site)
        ids = examples.ids[examples.highest_at[:, 0].long()].tolist()
        results += [projection.pieces.text(i) for i in ids]
    word = max(set(results), key=results.count)
    at.sidebar.text_input(key="search").set_value(word).run()
    assert errors(at) == []
    links = [each.proto for each in at.sidebar.get("page_link") if " of 1" in each.proto.label]  # type: ignore[union-attr]
    expected = search(projection, own / DECODER, word).results
    assert len(links) == min(len(expected), 8) > 0
    assert f"layer={expected[0].layer}" in links[0].query_string
