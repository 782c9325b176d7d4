"""The heatmap: what a box chooses, and what a cell is called."""

from __future__ import annotations

import re

from playwright.sync_api import Locator, Page, expect

from projector.projection.projection import Projection
from tests.dashboard.browser.app import (
    App,
    heading,
    params,
    rest,
    until,
    visit,
    wait_for_map,
)
from tests.families import N_NEURONS


def _open(page: Page, app: App, **chosen: object) -> Locator:
    """The picture at the right: in order, beside the one that is not."""
    page.goto(app.link("heatmap", **chosen))
    expect(heading(page)).to_have_text(re.compile("^Correlations in layer"))
    expect(page.locator(".js-plotly-plot")).to_have_count(1)
    page.get_by_text("Show unsorted too").click()
    expect(page.locator(".js-plotly-plot")).to_have_count(2)
    rest(page)
    return page.locator(".js-plotly-plot").last


def _place(plot: Locator, column: float, row: float) -> tuple[float, float]:
    """Where on the screen a cell's middle is."""
    plot.scroll_into_view_if_needed()
    area = plot.locator(".nsewdrag").bounding_box()
    assert area is not None
    return (
        area["x"] + area["width"] * (column + 0.5) / N_NEURONS,
        area["y"] + area["height"] * (row + 0.5) / N_NEURONS,
    )


def _drag(page: Page, start: tuple[float, float], end: tuple[float, float]) -> None:
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move((start[0] + end[0]) / 2, (start[1] + end[1]) / 2, steps=4)
    page.mouse.move(*end, steps=4)
    page.mouse.up()


def _marked(page: Page) -> set[int]:
    found: set[int] = set()
    for part in params(page).get("marked", "").split(","):
        if part:
            low, _, high = part.partition("-")
            found |= set(range(int(low), int(high or low) + 1))
    return found


def test_a_cell_names_its_neurons(page: Page, app: App, projection: Projection) -> None:
    plot = _open(page, app)
    order = projection.order(0, "mlp_post", "leaf").tolist()
    rho = projection.correlation(0, "mlp_post")
    page.mouse.move(*_place(plot, 7, 30))
    label = plot.locator(".hovertext")
    expect(label).to_contain_text(f"N{order[7]}")
    text = label.text_content() or ""
    assert f"N{order[30]}" in text
    said = re.search(r"ρ = ([−-]?[\d.]+)", text)
    assert said is not None
    expected = float(rho[order[7], order[30]])
    assert abs(float(said[1].replace("−", "-")) - expected) < 6e-4


def test_a_box_chooses_the_neurons_of_its_rows_and_columns(
    page: Page, app: App, projection: Projection
) -> None:
    plot = _open(page, app)
    order = projection.order(0, "mlp_post", "leaf").tolist()
    _drag(page, _place(plot, 4, 20), _place(plot, 9, 22))
    expected = {*order[4:10], *order[20:23]}
    until(lambda: _marked(page) == expected)
    expect(page.get_by_text(f"Selected: {len(expected)} neurons")).to_be_visible()
    assert params(page)["neuron"] == str(min(expected))
    rest(page)
    # Then another on the other picture: the first is forgotten, and does not come back.
    before = page.locator(".js-plotly-plot").first
    _drag(page, _place(before, 1, 1), _place(before, 3, 3))
    until(lambda: _marked(page) == {1, 2, 3})
    rest(page)
    assert _marked(page) == {1, 2, 3}
    # They are chosen everywhere.
    visit(page, "Map")
    wait_for_map(page)
    assert _marked(page) == {1, 2, 3}
    visit(page, "Heatmap")
    rest(page)
    assert _marked(page) == {1, 2, 3}
    expect(page.get_by_text("Selected: 3 neurons, N1, N2, N3")).to_be_visible()


def test_a_click_compares_two_neurons_and_a_double_click_resets_the_zoom(
    page: Page, app: App, projection: Projection
) -> None:
    page.goto(app.link("poles", layer=0, site="mlp_post"))
    rest(page)
    visit(page, "Heatmap")
    plot = page.locator(".js-plotly-plot")
    expect(plot).to_have_count(1)
    rest(page)
    # The groups that were found stand at the side.
    assert plot.locator(".shapelayer path").count() > 0
    order = projection.order(0, "mlp_post", "leaf").tolist()
    page.mouse.click(*_place(plot, 7, 30))
    pair = page.locator(".st-key-pair")
    expect(pair).to_contain_text(f"N{order[30]} and N{order[7]}")
    rho = float(projection.correlation(0, "mlp_post")[order[30], order[7]])
    expect(pair).to_contain_text(f"ρ = {rho:+.3f}".replace("-", "−"))
    rest(page)

    def width() -> float:
        found: float = plot.evaluate(
            "e => e._fullLayout.xaxis.range[1] - e._fullLayout.xaxis.range[0]"
        )
        return found

    whole = width()
    plot.hover()
    plot.locator('.modebar-btn[data-val="in"]').click()
    until(lambda: width() < whole)
    page.mouse.dblclick(*_place(plot, 20, 20))
    until(lambda: width() == whole)
    # Both clicks were one double click: the pair is the one from before.
    rest(page)
    expect(pair).to_contain_text(f"N{order[30]} and N{order[7]}")
    # Its neurons are a click away.
    pair.get_by_role("link", name=f"Open N{order[7]}").click()
    rest(page)
    assert params(page)["neuron"] == str(order[7])
