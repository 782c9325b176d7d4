"""The page of correlations."""

from __future__ import annotations

import base64
import html
import json
import re
from pathlib import Path

import numpy as np
import pytest

from dashboard.drawing.cells import ORDERS
from dashboard.state.naming import labels_at
from projector.projection.projection import Projection
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
        figure = json.loads(chart.proto.spec)["data"][0]  # type: ignore[union-attr]
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


def test_a_clicked_cell_compares_its_neurons(open_page: Open, root: Path) -> None:
    at = open_page("heatmap")
    at.session_state["compared neurons"] = (root / DECODER, 1, "mlp_post", (3, 7))
    at.run()
    assert errors(at) == []
    text = " ".join(each.value for each in at.markdown)
    rho = float(Projection.load(root / DECODER).correlation(1, "mlp_post")[3, 7])
    assert f"N3 and N7** · ρ = {rho:+.3f}".replace("-", "−") in text
    assert "first half of the corpus" in text
    # Of another layer it says nothing.
    at.query_params["layer"] = "0"
    at.run()
    assert "N3 and N7" not in " ".join(each.value for each in at.markdown)
