"""What a user takes away, read back by other programs."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pyarrow.parquet
import pytest
import torch

from dashboard.components.neuron_map import Panel, Timeline, Token, View, standalone_html
from dashboard.drawing import palette
from dashboard.drawing.legend import Legend
from dashboard.frame.exports import csv_of, html_of, neuron_table, parquet_of, with_labels
from projector.projection.projection import Projection
from pruning.poles.finding import find_poles
from pruning.poles.poles import PoleSettings

SETTINGS = PoleSettings("correlation", 2, None, "leaf")
HOSTILE = "</script><script>alert(1)</script><!-- <script> &quot; \u2028 \\"


@pytest.fixture(scope="module")
def projection(root: Path) -> Projection:
    """A projection whose neuron 2 has no place."""
    loaded = Projection.load(root / "qwen2")
    name, layout = next(iter(loaded.layouts.items()))
    positions = {key: t.clone() for key, t in layout.positions.items()}
    positions["layers.1.mlp_post"][2] = math.nan
    return replace(loaded, layouts={name: replace(layout, positions=positions)})


def test_names_stand_in_the_tables(projection: Projection) -> None:
    poles = find_poles(projection, 1, "mlp_post", SETTINGS)
    table = neuron_table(projection, 1, "mlp_post", None, poles)
    labels = ["", "mine, \n <b>", *(f"token {j}" for j in range(2, len(table)))]
    pole_labels = [f"group {k}" for k in range(len(poles.poles))]
    named = with_labels(table, labels, pole_labels)
    columns = pyarrow.parquet.read_table(io.BytesIO(parquet_of(named))).to_pydict()
    assert columns["label"][:3] == [None, "mine, \n <b>", "token 2"]
    assert columns["pole_label"] == [None if k < 0 else f"group {k}" for k in poles.labels.tolist()]
    assert "pole_label" not in with_labels(table, labels).column_names


def test_tables_are_read_back_as_they_are_known(projection: Projection) -> None:
    poles = find_poles(projection, 1, "mlp_post", SETTINGS)
    assert len(poles.poles) > 0
    table = neuron_table(projection, 1, "mlp_post", None, poles)
    positions = projection.positions(1, "mlp_post")
    expected = {
        "neuron": range(len(positions)),
        "pole": poles.labels,
        "strength": poles.strengths,
        "mean": projection.mean(1, "mlp_post"),
        "variance": projection.covariance(1, "mlp_post").diagonal(),
        **{f"position_{k + 1}": positions[:, k] for k in range(positions.shape[1])},
    }
    rows = list(csv.DictReader(io.StringIO(csv_of(table).decode("utf-8"))))
    columns = pyarrow.parquet.read_table(io.BytesIO(parquet_of(table))).to_pydict()
    assert set(rows[0]) == set(columns) == {"layer", "site", *expected}
    assert {(row["layer"], row["site"]) for row in rows} == {("1", "mlp_post")}
    assert set(columns["layer"]) == {1}
    assert set(columns["site"]) == {"mlp_post"}
    for name, values in expected.items():
        known = torch.as_tensor(list(values)).double().tolist()
        for found in ([row[name] or None for row in rows], columns[name]):
            for value, wanted in zip(found, known, strict=True):
                # In CSV as many digits as tell one float32 from another.
                assert (value is None) == math.isnan(wanted)
                assert value is None or np.float32(value) == np.float32(wanted)
    assert columns["position_1"][2] is None


def test_a_table_has_what_is_known(projection: Projection) -> None:
    bare = replace(projection, statistics={})
    table = neuron_table(bare, 0, "attn_out", None, None)
    assert table.column_names[:3] == ["layer", "site", "neuron"]
    assert all(name.startswith("position_") for name in table.column_names[3:])
    assert table.num_rows == len(bare.positions(0, "attn_out"))


class Page(HTMLParser):
    """The scripts of a page by id, and its other text."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts: list[tuple[dict[str, Any], str]] = []
        self.texts: list[str] = []
        self.links: list[str] = []
        self._in_script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.links += [str(attributes[name]) for name in ("src", "href") if attributes.get(name)]
        self._in_script = tag == "script"
        if self._in_script:
            self.scripts.append((attributes, ""))

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False

    def handle_data(self, data: str) -> None:
        if self._in_script:
            attributes, text = self.scripts[-1]
            self.scripts[-1] = (attributes, text + data)
        else:
            self.texts.append(data)


def read(page: str) -> Page:
    found = Page()
    found.feed(page)
    found.close()
    return found


def prompt_view() -> View:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(5, 3)).astype(np.float32)
    values = rng.integers(-127, 128, (3, 5)).astype(np.int8)
    tokens = [Token(HOSTILE, "token 1"), Token("<!--<script>", HOSTILE), Token("é🙂", "", True)]
    return View(
        [Panel(HOSTILE, "L0", points, values, scale=2.5, value_label=HOSTILE)],
        dim=3,
        colors=palette.diverging(),
        legend=Legend(HOSTILE, None, "−1", "1", signed=True),
        timeline=Timeline(HOSTILE, tokens, 1),
        label=HOSTILE,
    )


def test_a_page_of_its_own_holds_the_view() -> None:
    view = prompt_view()
    page = read(standalone_html(view, "A title"))
    data = [text for attributes, text in page.scripts if attributes.get("id") == "data"]
    assert len(data) == 1
    found = json.loads(data[0])
    assert found == json.loads(json.dumps(view.data(set())))
    panel = found["panels"][0]
    points = np.frombuffer(base64.b64decode(panel["positions"]), np.float32).reshape(5, 3)
    np.testing.assert_array_equal(points, view.panels[0].points)
    assert found["tokens"][0]["text"] == HOSTILE
    assert "A title" in page.texts
    # Nothing is fetched.
    assert page.links == []


def test_nothing_of_a_view_is_markup_of_its_page() -> None:
    hostile = standalone_html(prompt_view(), HOSTILE)
    page = read(hostile)
    harmless = read(standalone_html(View([], 3), "x"))
    # As many scripts as of a harmless one, the title whole, and nothing in the data that could
    # begin or end an element, not even where a browser takes a comment for one.
    assert len(page.scripts) == len(harmless.scripts)
    assert page.texts.count(HOSTILE) == 2
    data = next(text for attributes, text in page.scripts if attributes.get("id") == "data")
    assert "<" not in data


def test_a_figure_is_a_page_that_needs_no_network() -> None:
    figure = go.Figure(go.Scatter(x=[1, 2], y=[3, 4], name=HOSTILE))
    text = html_of(figure)
    page = read(text)
    assert page.links == []
    assert max(len(script) for _, script in page.scripts) > 1_000_000
    assert '"y":[3,4]' in text
    assert "<script>alert(1)" not in text
