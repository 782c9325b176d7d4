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
    # What the menu of each saves is named after its section.
    assert re.findall(r'"filename": ?"([^"]*)"', page)[-2:] == ["s0", "s1"]
    assert len(page) < 8_000_000


def test_columns_of_numbers_are_set_to_the_right_also_as_text() -> None:
    rows = (
        ("L0", "+1.50", "−3.0 %", "2 ms"),
        ("7", "–", "0.10 ± 0.02", "1.2e-07"),
        ("x", None, "4,000", "1"),
    )
    page = page_html("t", "", [Section("s", table=Table(("a", "b", "c", "d"), rows))])
    assert re.findall(r'<td class="number">([^<]*)</td>', page) == [
        "+1.50",
        "−3.0 %",
        "–",
        "0.10 ± 0.02",
        "–",
        "4,000",
    ]
