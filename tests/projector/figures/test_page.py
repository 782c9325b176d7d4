"""A report's page: it needs no network, and nothing of a model's or user's text is code in it."""

from __future__ import annotations

import re

import plotly.graph_objects as go

from projector.figures.page import Section, Table, page_html

ATTACK = "<script>alert('x')</script>"


def test_all_text_is_escaped() -> None:
    section = Section(ATTACK, ATTACK, table=Table((ATTACK, "n"), ((ATTACK, -1.5), (None, 2))))
    page = page_html(ATTACK, ATTACK, [section])
    assert ATTACK not in page
    assert page.count("&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;") == 7
    # No figure, no script at all.
    assert "<script" not in page
    assert '<td class="number">−1.5</td>' in page


def test_figures_are_drawn_without_a_network() -> None:
    sections = [Section(f"s{k}", figure=go.Figure(go.Bar(x=[1], y=[2]))) for k in range(2)]
    page = page_html("t", "", sections)
    assert not re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="http', page)
    # Plotly itself is there once, and both figures are drawn.
    assert page.count("Plotly.newPlot(") >= 2
    assert len(page) < 8_000_000
