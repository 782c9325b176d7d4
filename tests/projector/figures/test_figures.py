"""Figures: what they show is what the projection holds."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import projector
from projector import Projection, UserError
from projector.figures import heatmap
from projector.figures.heatmap import heatmap_figure
from projector.figures.html import write_figure, write_pictures
from projector.figures.map import map_figure
from projector.figures.trust import stress_figure
from projector.layouts.settings import Layout
from projector.naming.labels import neuron_labels
from projector.naming.names import Names, PoleKey
from projector.naming.poles import SavedPole
from projector.sites import map_name


@pytest.fixture(scope="module")
def fitted(checkpoint: Callable[[str], Path], text_file: Path) -> Projection:
    return projector.fit(str(checkpoint("qwen2")), str(text_file), max_tokens=2000)


def with_dead(projection: Projection, neuron: int) -> Projection:
    name = map_name(0, "mlp_post")
    layout = projection.layouts["stress-3d"]
    positions = layout.positions[name].clone()
    positions[neuron] = torch.nan
    covariance = projection.statistics[f"{name}.covariance"].clone()
    covariance[neuron] = covariance[:, neuron] = 0
    facts = projection.facts
    dead = replace(facts.maps[name], dead_neurons=(neuron,))
    return replace(
        projection,
        facts=replace(facts, maps={**facts.maps, name: dead}),
        layouts={"stress-3d": replace(layout, positions={**layout.positions, name: positions})},
        statistics=dict(projection.statistics) | {f"{name}.covariance": covariance},
    )


def test_a_map_shows_every_neuron_where_it_is(fitted: Projection) -> None:
    figure = map_figure(fitted, "mlp_post", [1])
    trace = figure.data[0]
    shown = np.stack([trace.x, trace.y, trace.z], axis=1)
    np.testing.assert_array_equal(shown, fitted.positions(1, "mlp_post").numpy())
    # By its number, and by what it fires on.
    label = neuron_labels(fitted.examples(1, "mlp_post"), fitted.pieces)[5]
    assert label is not None
    assert trace.text[5] == f"L1 N5 {html.escape(label.text, quote=False)}"
    # A name that the user gave it comes first.
    named = Names({map_name(1, "mlp_post"): {5: "<mine>"}})
    assert map_figure(fitted, "mlp_post", [1], names=named).data[0].text[5] == "L1 N5 &lt;mine&gt;"
    heat = heatmap_figure(fitted, 1, "mlp_post", names=named)
    assert "N5 &lt;mine&gt;" in heat.data[0].x
    bare = replace(fitted, example_tensors={}, example_facts=None)
    assert map_figure(bare, "mlp_post", [1]).data[0].text[5] == "L1 N5"
    spread = fitted.covariance(1, "mlp_post").diagonal().sqrt().numpy()
    np.testing.assert_allclose(trace.marker.color, np.log10(spread), rtol=1e-5)
    # The title says how far to trust it.
    overlap = fitted.figures(1, "mlp_post")["neighbour_overlap"]
    assert f"{10 * overlap:.1f} of 10 neighbours kept" in figure.layout.title.text


def test_the_slider_shows_one_layer_at_a_time(fitted: Projection) -> None:
    figure = map_figure(fitted, "attn_out")
    assert [trace.visible for trace in figure.data] == [True, False]
    second = figure.layout.sliders[0].steps[1]
    assert list(second.args[0]["visible"]) == [False, True]
    assert "Layer 1 attn_out" in second.args[1]["title.text"]


@pytest.mark.parametrize(("dim", "kind"), [(1, "scatter"), (2, "scatter"), (5, "scatter3d")])
def test_maps_of_other_dimensions(fitted: Projection, dim: int, kind: str) -> None:
    other = projector.relayout(fitted, Layout(dim=dim))
    figure = map_figure(other, "mlp_out", [0])
    assert figure.data[0].type == kind
    if dim == 5:
        assert " of 5" in figure.layout.title.text
        shown = np.stack([figure.data[0][axis] for axis in "xyz"], axis=1)
        spread = np.linalg.svd(other.positions(0, "mlp_out").numpy(), compute_uv=False)
        np.testing.assert_allclose(np.linalg.svd(shown, compute_uv=False), spread[:3], rtol=1e-4)


def test_a_dead_neuron_has_no_point_and_is_said(fitted: Projection) -> None:
    projection = with_dead(fitted, 4)
    figure = map_figure(projection, "mlp_post", [0])
    assert len(figure.data[0].x) == 39
    assert not any(text.startswith("L0 N4 ") for text in figure.data[0].text)
    assert "1 more" in figure.layout.title.text
    heat = heatmap_figure(projection, 0, "mlp_post")
    assert np.isfinite(heat.data[1].z).all()
    assert heat.data[0].z.shape == (39, 39)


def test_both_heatmaps_hold_the_same_values_on_one_scale(fitted: Projection) -> None:
    figure = heatmap_figure(fitted, 0, "mlp_post")
    before, after = figure.data
    assert before.coloraxis == after.coloraxis == "coloraxis"
    rho = fitted.correlation(0, "mlp_post").numpy()
    np.testing.assert_array_equal(before.z, rho)
    order = [int(re.match(r"N(\d+)", label)[1]) for label in after.x]  # type: ignore[index]
    np.testing.assert_array_equal(after.z, rho[np.ix_(order, order)])
    assert order == fitted.order(0, "mlp_post", "leaf").tolist()

    def beside_diagonal(z: np.ndarray) -> float:
        return float(np.mean(np.diagonal(z, 1)))

    assert beside_diagonal(after.z) > beside_diagonal(before.z) + 0.1


def test_poles_are_named_beside_the_ordered_heatmap(fitted: Projection) -> None:
    order = fitted.order(0, "mlp_post", "leaf").tolist()

    def pole(number: int, neurons: list[int], label: str | None, **other: Any) -> SavedPole:
        usual = {"is_distinct": None, "is_searched": True, "layer": 0, "site": "mlp_post"}
        given = usual | other
        return SavedPole(
            number=number, file="poles/a.json", neurons=tuple(neurons), label=label, **given
        )

    poles = [
        pole(0, order[3:8], "<self>"),
        # It overlaps with a distinct one, which comes first.
        pole(1, [*order[20:23], order[24]], "weak", is_distinct=False),
        pole(2, [order[23], *order[25:28]], None, is_distinct=True),
        # Its neurons stand apart.
        pole(3, order[9:36:9], "scattered"),
        pole(4, order[10:15], "of another map", layer=1),
        pole(5, order[10:15], "of other settings", is_searched=False),
    ]
    figure = heatmap_figure(fitted, 0, "mlp_post", poles=poles)
    told = [each.text for each in figure.layout.annotations if each.xref == "x2 domain"]
    assert [text for text in told if ":" in text or "pole" in text] == ["0: &lt;self&gt;", "pole 2"]
    assert len(figure.layout.shapes) == 2
    assert figure.layout.shapes[0].path == "M 1.006 2.5 L 1.016 2.5 L 1.016 7.5 L 1.006 7.5"
    # A name that the user gave comes first; in the order of numbers nothing stands together.
    key = PoleKey.of(0, "mlp_post", "poles/a.json", order[3:8])
    figure = heatmap_figure(fitted, 0, "mlp_post", names=Names({}, {key: "mine"}), poles=poles)
    assert "0: mine" in [each.text for each in figure.layout.annotations]
    assert not heatmap_figure(fitted, 0, "mlp_post", "index", poles=poles).layout.shapes


def test_downsampled_cells_are_means(fitted: Projection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heatmap, "MOST_CELLS", 16)
    figure = heatmap_figure(fitted, 0, "mlp_post", "linear")
    rho = fitted.correlation(0, "mlp_post").numpy()
    z = figure.data[0].z
    assert z.shape == (14, 14)  # 40 neurons, three to a cell, one left over
    assert z[2, 5] == pytest.approx(rho[6:9, 15:18].mean(), abs=1e-6)
    assert z[13, 0] == pytest.approx(rho[39:, :3].mean(), abs=1e-6)
    own = rho[:3, :3]
    assert z[0, 0] == pytest.approx((own.sum() - 3) / 6, abs=1e-6)
    assert np.isnan(z[13, 13])  # one neuron alone is no pair
    assert "3 × 3" in figure.layout.title.text


def test_trust_strips_hold_the_figures(fitted: Projection) -> None:
    stress, neighbours, of_neighbours = stress_figure(fitted).data
    sites = list(stress.y)
    row = sites.index("attn_out")
    assert stress.z[row][1] == fitted.figures(1, "attn_out")["stress"]
    assert neighbours.z[row][1] == pytest.approx(
        10 * fitted.figures(1, "attn_out")["neighbour_overlap"]
    )
    assert of_neighbours.z[row][1] == pytest.approx(
        10 * fitted.figures(1, "attn_out", "neighbours-2d")["neighbour_overlap"]
    )
    assert len(stress_figure(fitted, "stress-3d").data) == 2


def test_null_figures_are_blank_and_tell_why(fitted: Projection) -> None:
    linear = projector.relayout(fitted, Layout(objective="linear", dim=1))
    stress = stress_figure(linear).data[0]
    assert stress.z[0][0] is None
    assert "linear map" in stress.customdata[0][0]


def test_html_needs_no_network_and_escapes_names(fitted: Projection, tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)></script><script>alert(2)</script>"
    named = replace(fitted, facts=replace(fitted.facts, model=replace(fitted.facts.model, id=evil)))
    path = tmp_path / "map.html"
    write_figure(map_figure(named, "mlp_out"), path)
    page = path.read_text(encoding="utf-8")
    assert "<img src=x" not in page
    assert "<script>alert(2)" not in page
    assert not re.search(r"<(script|link)[^>]+(src|href)=", page)
    assert [p.name for p in tmp_path.iterdir()] == ["map.html"]


def test_pictures_of_a_projection(fitted: Projection, tmp_path: Path) -> None:
    written = write_pictures(fitted, tmp_path)
    fit_of = [fitted.figures(layer, "mlp_post")["rank_correlation"] for layer in (0, 1)]
    clearest = fit_of.index(max(fit_of))
    assert sorted(path.name for path in written) == [
        f"heatmap-layer{clearest}-mlp_post.html",
        *(
            f"map-{site}-{layout}.html"
            for site in ("attn_out", "mlp_out", "mlp_post")
            for layout in ("neighbours-2d", "stress-3d")
        ),
        "trust.html",
    ]
    assert all(path.exists() for path in written)


def test_unknown_layer_is_refused(fitted: Projection) -> None:
    with pytest.raises(UserError, match="layer 9"):
        map_figure(fitted, "mlp_out", [9])
    with pytest.raises(UserError, match="mlp_in"):
        map_figure(fitted, "mlp_in")


def test_a_map_of_many_dimensions_without_a_live_neuron_is_empty(fitted: Projection) -> None:
    other = projector.relayout(fitted, Layout(dim=5))
    layout = other.layouts["stress-5d"]
    nowhere = {name: torch.full_like(p, torch.nan) for name, p in layout.positions.items()}
    dead = replace(other, layouts={"stress-5d": replace(layout, positions=nowhere)})
    (trace,) = map_figure(dead, "mlp_out", [0]).data
    assert trace.type == "scatter3d"
    assert len(trace.x) == 0


def test_the_layout_that_is_asked_for_is_drawn(fitted: Projection) -> None:
    flat = projector.relayout(fitted, Layout(dim=2)).layouts["stress-2d"]
    both = replace(fitted, layouts={**fitted.layouts, "stress-2d": flat})
    assert map_figure(both, "mlp_out", [0]).data[0].type == "scatter3d"
    (trace,) = map_figure(both, "mlp_out", [0], "stress-2d").data
    shown = np.stack([trace.x, trace.y], axis=1)
    np.testing.assert_array_equal(shown, both.positions(0, "mlp_out", "stress-2d").numpy())
    drawn = stress_figure(both, "stress-2d").data[0].z
    assert drawn[both.sites.index("mlp_out")][0] == both.figures(0, "mlp_out", "stress-2d").stress


def test_a_heatmap_is_of_the_layout_that_is_named(fitted: Projection) -> None:
    linear = projector.relayout(fitted, Layout(objective="linear")).layouts["linear-1d"]
    # An order of its own, and one neuron less.
    name = map_name(0, "mlp_post")
    points = torch.arange(len(linear.positions[name]), dtype=torch.float32).flip(0)[:, None]
    points[3] = torch.nan
    placed = replace(linear, positions={**linear.positions, name: points})
    both = replace(fitted, layouts={**fitted.layouts, "linear-1d": placed})

    def shown(layout: str | None) -> list[str]:
        figure = heatmap_figure(both, 0, "mlp_post", "linear", layout)
        # Without the labels behind the neurons' numbers.
        return [text.split()[0] for text in figure.data[1].x]

    n = len(points)
    assert shown("linear-1d") == [f"N{i}" for i in reversed(range(n)) if i != 3]
    assert shown(None) == shown("stress-3d") != shown("linear-1d")
    assert len(shown(None)) == n
    with pytest.raises(UserError, match="stress-9d"):
        shown("stress-9d")
