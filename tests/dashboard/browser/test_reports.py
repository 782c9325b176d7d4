"""Reports as a browser opens them: offline pages, whose scripts show what they were given."""

from __future__ import annotations

from pathlib import Path

import plotly.graph_objects as go
import torch
from playwright.sync_api import Browser, expect

from projector.figures.page import Section, page_html
from projector.figures.residual.patterns import (
    PATTERN_SCRIPT,
    PATTERN_STYLE,
    pattern_html,
    texts_html,
)

TEXTS = ["first", "\n", "</script><img src=x onerror='window.ran=1'>"]
PATTERN = torch.tensor([[1.0, 0, 0], [0.25, 0.75, 0], [0.5, 0.3, 0.2]])


def test_a_pattern_is_shown_as_text_and_as_a_matrix(browser: Browser) -> None:
    page = browser.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    drawn = pattern_html(PATTERN, 2, "a pattern")
    page.set_content(
        f"<body>{PATTERN_STYLE}{texts_html(TEXTS)}{drawn}{drawn}{PATTERN_SCRIPT}</body>"
    )
    box = page.locator(".pattern").first
    tokens, said = box.locator(".words span"), box.locator(".said")
    # What stands there is the text itself, and nothing of it ran.
    expect(tokens.nth(2)).to_have_text(TEXTS[2])
    assert page.evaluate("window.ran") is None
    expect(said).to_contain_text("takes 0.50 from token 1 “first”, the most of all.")
    tokens.nth(1).hover()
    expect(said).to_contain_text("Token 2 “⏎” takes 0.75 from token 2")
    shades = [tokens.nth(k).evaluate("(s) => s.style.background") for k in range(3)]
    assert "0.749" in shades[1]
    assert shades[2].endswith("/ 0)")
    # The last row's middle cell: 0.3, rounded to a byte.
    canvas = box.locator("canvas")
    area = canvas.bounding_box()
    assert area is not None
    cell = 16
    canvas.hover(position={"x": area["width"] - 2 - 1.5 * cell, "y": area["height"] - 2 - cell / 2})
    expect(said).to_contain_text("Token 3")
    expect(said).to_contain_text("takes 0.30 from token 2 “⏎”.")
    ink = canvas.evaluate(
        "(c) => [...c.getContext('2d').getImageData(c.width - 24, c.height - 8, 1, 1).data]"
    )
    assert abs(ink[3] - 0.3 * 255) <= 2
    assert problems == []
    page.close()


def test_figures_follow_the_scheme_of_the_page(browser: Browser, tmp_path: Path) -> None:
    figure = go.Figure(go.Scatter(x=[1, 2], y=[1, 2]), {"template": "plotly_white"})
    file = tmp_path / "page.html"
    file.write_text(page_html("t", "", [Section("s", figure=figure)]), encoding="utf-8")
    page = browser.new_page(color_scheme="dark")
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(file.as_uri())
    ground, tick = page.locator(".main-svg").first, page.locator(".xtick text").first
    expect(ground).to_have_css("background-color", "rgb(20, 24, 29)")
    expect(tick).to_have_css("fill", "rgb(228, 231, 235)")
    page.emulate_media(color_scheme="light")
    expect(ground).to_have_css("background-color", "rgb(255, 255, 255)")
    expect(tick).to_have_css("fill", "rgb(42, 63, 95)")
    assert problems == []
    page.close()
