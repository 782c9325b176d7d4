"""The page about a stream: what each head adds, and how well the sums close."""

from __future__ import annotations

import html
from dataclasses import replace
from typing import Any

import pytest

from projector.figures.residual.stream import heads_figure, stream_page
from projector.model.loading import LoadedModel
from projector.residual.flow.stream import Stream, stream
from projector.residual.flow.words import closing_words, heads_words
from projector.residual.subject import Subject
from tests.families import build


@pytest.fixture(scope="module")
def found(tokenizer: Any) -> Stream:
    return stream(Subject(LoadedModel(build("llama"), tokenizer, "tiny", "")), prompt="kalo mi ten")


def test_heads_are_a_map_of_layers_by_heads(found: Stream) -> None:
    rows = found.as_dict()["flow"]["rows"]
    (heatmap,) = heads_figure(found.flow).data
    assert [tuple(row) for row in heatmap.z] == [row["heads"] for row in rows]
    strongest = max((v, k, h) for k, row in enumerate(rows) for h, v in enumerate(row["heads"]))
    assert f"L{strongest[1]} H{strongest[2]}" in heads_words(found.flow).split(",")[1]
    assert heads_words(found.flow) in html.unescape(stream_page(found))


def test_layers_whose_attention_has_no_heads_are_left_blank(found: Stream) -> None:
    without = replace(found.flow.rows[0], heads=None)
    flow = replace(found.flow, rows=(without, *found.flow.rows[1:]))
    (heatmap,) = heads_figure(flow).data
    assert all(value is None for value in heatmap.z[0])
    assert "layer 0 can" in heads_words(flow)
    none = replace(flow, rows=tuple(replace(row, heads=None) for row in flow.rows))
    none = replace(none, heads_error=None)
    assert heads_words(none) == ""
    pages = [stream_page(each) for each in (replace(found, flow=none), found)]
    fewer, all_of_them = (page.count("Plotly.newPlot(") for page in pages)
    assert fewer < all_of_them


def test_both_errors_of_the_sum_are_told(found: Stream) -> None:
    flow = replace(found.flow, additivity_error=1.5e-2, step_error=3e-3, worst="L1 MLP")
    words = closing_words(flow)
    assert all(each in words for each in ("1.5e−02", "3.0e−03", "L1 MLP"))
