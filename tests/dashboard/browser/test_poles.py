"""Poles: a row of the table, seen on every page, and taken away from the model."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from projector.projection.projection import Projection
from pruning.poles.finding import find_poles
from tests.dashboard.browser.app import (
    App,
    cells,
    params,
    rest,
    run_prompt,
    until,
    visit,
    wait_for_map,
)


def _choose_row(page: Page, row: int) -> None:
    """The box at its left: the table is a canvas, rows of 35 pixels below a head of 35."""
    table = page.get_by_test_id("stDataFrame").first
    table.scroll_into_view_if_needed()
    box = table.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + 18, box["y"] + 35 + 35 * row + 17)


def _runs(text: str) -> set[int]:
    found: set[int] = set()
    for part in text.split(","):
        low, _, high = part.partition("-")
        found |= set(range(int(low), int(high or low) + 1))
    return found


def test_a_pole_is_chosen_marked_and_ablated(page: Page, app: App, projection: Projection) -> None:
    found = find_poles(projection, 0, "mlp_post")
    assert len(found.poles) > 1
    members = set((found.labels == 1).nonzero()[:, 0].tolist())
    page.goto(app.link("prompt"))
    rest(page)
    run_prompt(page, "kalo mi tenra", n_new=4)
    wait_for_map(page)
    visit(page, "Poles")
    expect(page.get_by_text("Choose a pole in the table")).to_be_visible()
    expect(page.get_by_test_id("stMetricValue").first).to_have_text(str(len(found.poles)))
    _choose_row(page, 1)
    expect(page.get_by_text(re.compile(rf"^{len(members)} neurons of L0"))).to_be_visible()
    rest(page)
    assert params(page)["pole"] == "1"
    assert _runs(params(page)["marked"]) == members
    page.get_by_role("textbox", name="Text to score on").fill("unseen.txt")
    page.get_by_role("button", name="Ablate").click()
    expect(page.get_by_text("Perplexity over")).to_be_visible(timeout=60_000)
    rows = cells(page.get_by_test_id("stDataFrame").last)
    text = " ".join(rows)
    # Beside as many random neurons, and with how each model continues the prompt.
    for name in (
        "the whole model",
        "without the group",
        f"without {len(members)} random neurons, draw 3",
    ):
        assert name in text
    assert len(re.findall(r"[+−]\d+\.\d\d%", text)) == 5
    # It is chosen everywhere, until the selection is cleared.
    visit(page, "Map")
    wait_for_map(page)
    expect(page.get_by_text(f"Pole 1 is selected: {len(members)} neurons")).to_be_visible()
    visit(page, "Poles")
    expect(page.get_by_role("heading", name=re.compile("^Pole 1"))).to_be_visible()
    # What was asked for is there still, and what came of it.
    expect(page.get_by_role("textbox", name="Text to score on")).to_have_value("unseen.txt")
    expect(page.get_by_text("Perplexity over")).to_be_visible()
    visit(page, "Map")
    page.get_by_role("button", name="Clear selection").click()
    until(lambda: not {"pole", "marked"} & set(params(page)))
    expect(page.get_by_text("is selected")).to_have_count(0)
