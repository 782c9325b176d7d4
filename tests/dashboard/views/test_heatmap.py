"""The page of correlations."""

from __future__ import annotations

import base64
import html
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from dashboard.drawing import palette
from dashboard.drawing.cells import ORDERS, cells_of
from dashboard.drawing.coloring import color_by_pole
from dashboard.drawing.figures import heatmap_figure, tree_figure
from dashboard.drawing.legend import colors_of
from dashboard.state.naming import labels_at
from projector.figures.brackets import Bracket
from projector.projection.projection import Projection
from pruning.poles.poles import Pole, Poles, PoleSettings
from pruning.poles.tree import Branch, CondensedTree
from tests.dashboard.conftest import DECODER, Open
from tests.dashboard.pages import (
    GROUPING,
    errors,
    link,
)


@pytest.mark.parametrize("by", ["leaf", "linear", "pole", "spectral", "index"])
def test_a_heatmap_has_every_order(by: str, open_page: Open, root: Path) -> None:
    at = open_page("heatmap", grouping=GROUPING, marked="1-4")
    assert at.selectbox(key="order").value == "leaf"
    assert len(at.get("plotly_chart")) == 1
    at.toggle(key="heatmap unsorted").set_value(True)
    at.selectbox(key="order").select(by).run()
    assert errors(at) == []
    assert link(at).get("order") == (None if by == "leaf" else by)
    rho = Projection.load(root / DECODER).correlation(1, "mlp_post").numpy()
    charts = at.get("plotly_chart")
    assert len(charts) == (1 if by == "index" else 2)
    titles = [json.loads(chart.proto.spec)["layout"]["title"]["text"] for chart in charts]
    assert titles == [ORDERS[name] for name in dict.fromkeys(("index", by))]
    for chart in charts:
        figure = json.loads(chart.proto.spec)["data"][0]
        order = [int(re.match(r"N(\d+)", name)[1]) for name in figure["x"]]  # type: ignore[index]
        assert sorted(order) == list(range(40))
        z = figure["z"]
        if isinstance(z, dict):
            z = np.frombuffer(base64.b64decode(z["bdata"]), z["dtype"]).reshape(40, 40)
        np.testing.assert_allclose(np.array(z), rho[order][:, order], atol=6e-4)


def test_the_order_stays_when_one_comes_back_and_is_in_the_link(open_page: Open) -> None:
    at = open_page("heatmap", order="spectral")
    assert errors(at) == []
    assert at.selectbox(key="order").value == "spectral"
    assert link(at)["order"] == "spectral"
    # What no picture has is said, and the usual one is shown.
    at = open_page("heatmap", order="sideways")
    assert errors(at) == []
    assert "order" not in link(at)
    assert at.selectbox(key="order").value == "leaf"


def test_groups_stand_at_the_side_with_what_they_fire_on(open_page: Open, root: Path) -> None:
    at = open_page("poles", grouping=GROUPING)
    names = list(at.dataframe[0].value["fires on"])
    at = open_page("heatmap", grouping=GROUPING, order="pole")
    assert errors(at) == []
    layout = json.loads(at.get("plotly_chart")[0].proto.spec)["layout"]
    assert len(layout["shapes"]) > 1
    shown = {each["text"].split(": ", 1)[1][:10] for each in layout["annotations"]}
    told = {name.replace("<", "&lt;").replace(">", "&gt;")[:10] for name in names}
    assert shown <= told
    # Hover texts say what each neuron fires on.
    labels = labels_at(root / DECODER, 1, "mlp_post")
    assert any(labels)
    rows = json.loads(at.get("plotly_chart")[0].proto.spec)["data"][0]["x"]
    expected = {html.escape(f"N{j} {text}".rstrip(), quote=False) for j, text in enumerate(labels)}
    assert set(rows) == expected


@pytest.mark.parametrize("dark", [False, True])
def test_a_pole_has_one_colour_on_the_map_in_the_heatmap_and_in_the_tree(dark: bool) -> None:
    n = palette.N_GROUPS + 2
    labels = torch.arange(n).repeat_interleave(3)
    # The last numbers are distinct, and so come first in lists and in colours.
    found = tuple(Pole(size=3, exemplars=(3 * k,), distinct=k >= n - 2) for k in range(n))
    poles = Poles(
        1, "mlp_post", PoleSettings(), labels, torch.ones(3 * n), found, (), 0.0, None, {}
    )
    colors = colors_of(poles).tolist()
    painted = palette.groups(dark=dark)[color_by_pole(poles).values]
    on_map = [palette.hex_of(painted, 3 * k) for k in range(n)]
    assert len(set(on_map[-2:] + on_map[:-4])) == palette.N_GROUPS
    brackets = tuple(Bracket(3 * k, 3 * k + 2, f"{k}: name of {k}", k) for k in range(n))
    cells = cells_of(np.eye(3 * n, dtype=np.float32), np.arange(3 * n))
    heat = heatmap_figure(cells, 1.0, "L3", brackets=brackets, group_colors=colors, dark=dark)
    assert [shape.line.color for shape in heat.layout.shapes] == on_map
    # Numbers alone, where there is no room for names; those are told to who points there.
    assert [each.text for each in heat.layout.annotations] == [str(k) for k in range(n)]
    assert heat.layout.annotations[1].hovertext == "1: name of 1"
    tree = CondensedTree(tuple(Branch(k, (0.0, 1.0), (1.0, 2.0), 3) for k in range(n)))
    drawn = tree_figure(tree, colors, dark=dark)
    assert [trace.fillcolor for trace in drawn.data] == on_map


def test_a_clicked_cell_compares_its_neurons(open_page: Open, root: Path) -> None:
    at = open_page("heatmap")
    at.session_state["compared neurons"] = (root / DECODER, 1, "mlp_post", (3, 7))
    at.run()
    assert errors(at) == []
    text = " ".join(each.value for each in at.markdown)
    rho = float(Projection.load(root / DECODER).correlation(1, "mlp_post")[3, 7])
    assert f"N3 and N7** · ρ = {rho:+.3f}".replace("-", "−") in text
    assert "half" in text
    # Of another layer it says nothing.
    at.query_params["layer"] = "0"
    at.run()
    assert "N3 and N7" not in " ".join(each.value for each in at.markdown)
