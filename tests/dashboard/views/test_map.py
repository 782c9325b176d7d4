"""The page of the map."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from dashboard.components.neuron_map import View
from dashboard.state import loading
from dashboard.state.shelf import shelf
from dashboard.views import map as map_view
from projector.layouts.registry import OBJECTIVES, register
from projector.layouts.settings import Layout
from projector.layouts.stress import STRESS
from projector.projection.overview import STATISTICS_FILE
from projector.projection.projection import Projection
from projector.projection.provenance import layout_settings
from projector.sites import map_name
from pruning.poles.finding import find_poles
from pruning.poles.poles import Poles, PoleSettings
from tests.dashboard.conftest import DECODER, Open
from tests.dashboard.pages import (
    GROUPING,
    NEURON,
    decoded,
    errors,
    link,
    maps_of,
)
from tests.pruning.test_preparing import fit


def test_points_are_the_projections(open_page: Open, root: Path) -> None:
    # Where poles are not known yet a page is drawn twice, and positions are sent the first time.
    open_page("map").toggle(key="map beside").set_value(True).run()
    at = open_page("map", neuron=NEURON, marked="5-6")
    (alone,) = maps_of(at)[0]["panels"]
    (found,) = maps_of(at.toggle(key="map beside").set_value(True).run())
    projection = Projection.load(root / DECODER)
    assert [panel["name"] for panel in found["panels"]] == ["L1", "L1 attn out"]
    for panel, site in ((alone, "mlp_post"), (found["panels"][1], "attn_out")):
        expected = projection.positions(1, site).numpy()
        points = decoded(panel["positions"], np.float32, len(expected), 3)
        np.testing.assert_array_equal(points[:, : expected.shape[1]], expected)
    assert (found["panels"][0]["selected"], found["panels"][0]["marked"]) == (NEURON, [5, 6])
    assert (found["panels"][1]["selected"], found["panels"][1]["marked"]) == (None, [])


def test_a_neuron_leads_to_its_card_and_its_pole_is_lit(open_page: Open, root: Path) -> None:
    poles = find_poles(
        Projection.load(root / DECODER), 1, "mlp_post", PoleSettings("correlation", 2, None, "leaf")
    )
    members = (poles.labels == 0).nonzero()[:, 0].tolist()
    at = open_page("map", neuron=members[0], grouping=GROUPING)
    at.button(key="open card").click().run()
    assert errors(at) == []
    assert at.title[0].value == f"L1 N{members[0]}"
    at = open_page("map", pole=0, grouping=GROUPING)
    assert errors(at) == []
    assert "Layer 1" in at.title[0].value
    # Lit as a group, without a ring around each.
    panel = maps_of(at)[0]["panels"][0]
    assert panel["groups"][panel["group"]]["number"] == 0
    assert panel["marked"] == []
    membership = decoded(panel["membership"], np.int16, -1)
    assert np.flatnonzero(membership == panel["group"]).tolist() == members


def test_positions_are_sent_once_in_a_session(open_page: Open) -> None:
    at = open_page("map")
    at.selectbox(key="map colour").select("mean").run()
    (found,) = maps_of(at)
    assert [panel["positions"] for panel in found["panels"]] == [None]
    assert all(panel["values"] for panel in found["panels"])


@pytest.mark.parametrize("color", ["pole", "mean", "spread", "importance", "dead", "none"])
def test_a_map_has_every_colour_and_size(color: str, open_page: Open) -> None:
    at = open_page("map", grouping=GROUPING)
    at.selectbox(key="map colour").select(color).run()
    assert errors(at) == []
    values = decoded(maps_of(at)[0]["panels"][0]["values"], np.uint8, -1)
    assert (len(set(values.tolist())) > 1) == (color not in ("dead", "none"))
    if color in ("mean", "spread", "importance"):
        at.selectbox(key="map size").select(color).run()
        assert errors(at) == []
        sizes = decoded(maps_of(at)[0]["panels"][0]["sizes"], np.uint8, -1)
        assert len(set(sizes.tolist())) > 5


def test_the_map_is_drawn_before_its_poles_are_found(
    open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[View] = []
    monkeypatch.setattr(map_view, "neuron_map", lambda view, **_: drawn.append(view))
    shelf().forget("poles")
    at = open_page("map", grouping=GROUPING)
    assert errors(at) == []
    before, after = (view.panels[0].legend for view in drawn)
    assert before is not None
    assert after is not None
    assert [color for _, color in before.items] == [color for _, color in after.items] == [0]
    assert before.items != after.items
    assert [view.panels[0].groups is None for view in drawn] == [True, False]


def test_a_wide_layer_s_poles_are_found_apart(
    start: Open, copied: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    apart: list[tuple[int, str]] = []

    def find_apart(
        folder: Path,
        layer: int,
        site: str,
        layout: str,
        settings: PoleSettings,
        waiting: Callable[[], None],
    ) -> Poles:
        apart.append((layer, site))
        waiting()
        return find_poles(Projection.load(folder), layer, site, settings, layout)

    monkeypatch.setattr(loading, "MOST_AT_ONCE", 30)
    monkeypatch.setattr(loading, "find_apart", find_apart)
    root = copied(DECODER)
    at = start(root, "map", projection=DECODER, grouping=GROUPING).run()
    assert errors(at) == []
    # Of 40 and of 24 neurons.
    assert apart == [(0, "mlp_post")]
    # In no pole: a share, and not the sign for what is not known.
    assert at.metric[-1].value.endswith("%")


def test_a_table_is_of_the_poles_that_are_shown(
    open_page: Open, monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    made = []
    monkeypatch.setattr(
        map_view.exports, "neuron_table", lambda *given: made.append(given[-1]) or pa.table({})
    )
    offered = []
    monkeypatch.setattr(
        map_view.st, "download_button", lambda label, make, *a, **k: offered.append(make)
    )
    open_page("map", grouping=GROUPING)
    # Without a session, as downloads are made.
    offered[-3]()
    expected = find_poles(
        Projection.load(root / DECODER),
        1,
        "mlp_post",
        PoleSettings("correlation", 2, None, "leaf", 0.0),
    )
    assert torch.equal(made[-1].labels, expected.labels)


@pytest.mark.parametrize(
    "options", [("--dim", "1"), ("--dim", "2"), ("--objective", "linear"), ("--absolute",)]
)
def test_maps_of_every_form_are_shown(
    options: tuple[str, ...], copied: Callable[..., Path], start: Open, text_file: Path
) -> None:
    own = copied("models")
    fit(own / "models" / DECODER, text_file, own / DECODER, "--sites", "mlp_post", *options)
    for page in ("map", "poles", "heatmap"):
        at = start(own, page, projection=DECODER, layer=1, site="mlp_post", neuron=NEURON).run()
        assert errors(at) == []
    at = start(own, "map", projection=DECODER, layer=1, site="mlp_post").run()
    (found,) = maps_of(at)
    points = decoded(found["panels"][0]["positions"], np.float32, 40, 3)
    expected = Projection.load(own / DECODER).positions(1, "mlp_post").numpy()
    n = min(3, expected.shape[1])
    np.testing.assert_array_equal(points[:, :n], expected[:, :n])
    assert not points[:, n:].any()
    panel = found["panels"][0]
    assert (np.abs(points - panel["middle"]).max(axis=0) <= np.array(panel["reach"]) + 1e-6).all()
    caption = next(each.value for each in at.caption if "R to reset" in each.value)
    is_flat = expected.shape[1] < 3
    assert caption.startswith("Drag to move" if is_flat else "Drag to turn")
    assert f"Arrow keys {'move' if is_flat else 'turn'} it" in found["label"]


def test_a_layout_that_is_not_centred_is_drawn_about_its_middle(
    copied: Callable[..., Path], start: Open
) -> None:
    """Positions keep their numbers, and its frame is as large as before."""
    own = copied(DECODER)
    loaded = Projection.load(own / DECODER)
    name, placed = next(iter(loaded.layouts.items()))

    def maps_drawn() -> list[dict[str, Any]]:
        at = start(own, "map", projection=DECODER, layer=1, site="mlp_post").run()
        assert errors(at) == []
        return maps_of(at)

    (before,) = maps_drawn()
    away = torch.tensor([60.0, -10.0, 30.0])
    moved = {
        map_name(layer, site): loaded.positions(layer, site) + (layer + 1) * away
        for layer, site in loaded.maps
    }
    layouts = {name: replace(placed, positions=moved)}
    replace(loaded, layouts=layouts).save(own / DECODER, force=True)
    (found,) = maps_drawn()
    (panel,), (old,) = found["panels"], before["panels"]
    assert panel["reach"] == pytest.approx(old["reach"], rel=1e-3)
    expected = np.array(old["middle"]) + 2 * away.numpy()
    assert panel["middle"] == pytest.approx(expected.tolist(), abs=1e-3)


def test_statistics_that_went_away_are_one_message(
    start: Open, copied: Callable[..., Path]
) -> None:
    root = copied(DECODER)
    at = start(root, "map", projection=DECODER, layer=0).run()
    (root / DECODER / STATISTICS_FILE).unlink()
    at.sidebar.select_slider(key="choose layer").set_value(1).run()
    assert any(STATISTICS_FILE in error for error in errors(at))
    assert len(errors(at)) == 1


def test_an_objective_that_is_registered_is_shown_as_any_other(
    copied: Callable[..., Path], start: Open
) -> None:
    own = copied(DECODER)
    fake = replace(STRESS, name="fake", read="Read it with a pinch of salt.")
    register(fake)
    try:
        loaded = Projection.load(own / DECODER)
        first, placed = next(iter(loaded.layouts.items()))
        other = replace(placed, settings=replace(placed.settings, objective="fake"))
        layouts = {first: placed, other.settings.name: other}
        replace(loaded, layouts=layouts).save(own / DECODER, force=True)
        at = start(own, "map", projection=DECODER, layout=other.settings.name).run()
        assert errors(at) == []
        control = at.segmented_control(key="layout")
        assert control.options == ["Distances, 3-D", "Fake, 3-D"]
        assert control.value == "fake-3d"
        assert any(each.value.endswith(fake.read) for each in at.caption)
    finally:
        del OBJECTIVES[fake.name]


def test_the_nearest_by_rho_are_lit_and_can_be_isolated(open_page: Open, root: Path) -> None:
    """Wherever the map put them; the link tells who is shown alone."""
    rho = Projection.load(root / DECODER).correlation(1, "mlp_post")[NEURON].clone()
    rho[NEURON] = -2
    expected = rho.nan_to_num(-2).argsort(descending=True)[:10].tolist()
    at = open_page("map", neuron=NEURON, isolate=NEURON)
    assert errors(at) == []
    panel = maps_of(at)[0]["panels"][0]
    assert [neuron for neuron, _ in panel["near"]] == expected
    assert [value for _, value in panel["near"]] == pytest.approx(rho[expected].tolist(), abs=1e-4)
    assert panel["isolated"]
    assert link(at)["isolate"] == str(NEURON)
    assert not maps_of(open_page("map", neuron=NEURON))[0]["panels"][0]["isolated"]


def test_the_colour_is_in_the_link(open_page: Open) -> None:
    at = open_page("map")
    at.selectbox(key="map colour").select("mean").run()
    assert link(at)["color"] == "mean"
    again = open_page("map", color="mean")
    assert again.selectbox(key="map colour").value == "mean"
    assert not maps_of(again)[0]["panels"][0]["by_group"]
    at.selectbox(key="map colour").select("pole").run()
    assert "color" not in link(at)
    # What a link calls a colour need not be one.
    assert open_page("map", color="sepia").selectbox(key="map colour").value == "pole"


def test_another_layout_keeps_the_selection(copied: Callable[..., Path], start: Open) -> None:
    own = copied(DECODER)
    loaded = Projection.load(own / DECODER)
    name, placed = next(iter(loaded.layouts.items()))
    flat = Layout(objective="stress", dim=2)
    positions = {
        map_name(layer, site): loaded.positions(layer, site)[:, :2].clone()
        for layer, site in loaded.maps
    }
    other = replace(placed, settings=layout_settings(flat), positions=positions)
    layouts = {name: placed, flat.name: other}
    replace(loaded, layouts=layouts).save(own / DECODER, force=True)
    chosen = {"neuron": NEURON, "pole": 0, "marked": "5-6", "color": "mean", "grouping": GROUPING}
    at = start(own, "map", projection=DECODER, layer=1, site="mlp_post", **chosen).run()
    assert errors(at) == []
    # The first in two dimensions is the usual one.
    assert maps_of(at)[0]["dim"] == 2
    control = at.segmented_control(key="layout")
    assert control.options == ["Distances, 3-D", "Distances, 2-D"]
    control.set_value(name).run()
    assert errors(at) == []
    assert maps_of(at)[0]["dim"] == 3
    assert {key: link(at)[key] for key in chosen} == {k: str(v) for k, v in chosen.items()}
    assert link(at)["layout"] == name
