"""The page of correlations."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest

from dashboard.views.heatmap import ORDERS
from projector.projection.projection import Projection
from tests.dashboard.conftest import DECODER, Open
from tests.dashboard.pages import (
    GROUPING,
    errors,
)


@pytest.mark.parametrize("by", ["linear", "leaf", "pole", "spectral", "index"])
def test_a_heatmap_has_every_order(by: str, open_page: Open, root: Path) -> None:
    at = open_page("heatmap", grouping=GROUPING, marked="1-4")
    at.selectbox(key="order").select(by).run()
    assert errors(at) == []
    rho = Projection.load(root / DECODER).correlation(1, "mlp_post").numpy()
    charts = at.get("plotly_chart")
    assert len(charts) == (1 if by == "index" else 2)
    titles = [json.loads(chart.proto.spec)["layout"]["title"]["text"] for chart in charts]
    assert titles == [ORDERS[name] for name in dict.fromkeys(("index", by))]
    for chart in charts:
        figure = json.loads(chart.proto.spec)["data"][0]  # type: ignore[union-attr]
        order = [int(name[1:]) for name in figure["x"]]
        assert sorted(order) == list(range(40))
        z = figure["z"]
        if isinstance(z, dict):
            z = np.frombuffer(base64.b64decode(z["bdata"]), z["dtype"]).reshape(40, 40)
        np.testing.assert_allclose(np.array(z), rho[order][:, order], atol=6e-4)
