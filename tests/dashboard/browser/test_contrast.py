"""Two sets of prompts in the browser: a run is stopped, one ends, its layers and its files."""

from __future__ import annotations

import json
from pathlib import Path

from playwright.sync_api import Locator, Page, expect

from tests.dashboard.browser.app import PATIENCE_S, App, choose, params, rest, until, visit

PATIENCE_MS = 2 * PATIENCE_S * 1000


def _prompts(*words: str) -> str:
    return "\n".join(f"{a} {b} {words[0]}" for a in words for b in words)


def _save(page: Page, name: str, folder: Path) -> str:
    with page.expect_download() as waiting:
        page.get_by_test_id("stDownloadButton").get_by_role("button", name=name).click()
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    assert path.suffix == f".{name.lower()}"
    return path.read_text(encoding="utf-8")


def _marks(page: Page) -> Locator:
    """The marks of the first curve that is a model's own, layer by layer."""
    chart = page.locator(".js-plotly-plot").first
    return chart.locator(".scatterlayer .trace.scatter .points path")


def test_two_sets_are_compared_and_their_layers_chosen(
    page: Page, app: App, tmp_path: Path
) -> None:
    page.goto(app.link("contrast", layer=0))
    run = page.get_by_role("button", name="Run", exact=True)
    expect(page.get_by_text("Press Run to compare")).to_be_visible()
    choose(page, "Pair", "statements and negations")
    # Stopped, it is over: nothing is shown, and nothing begins again.
    run.click()
    page.get_by_role("button", name="Stop").click()
    rest(page)
    expect(page.get_by_role("button", name="Stop")).to_have_count(0)
    expect(page.locator(".js-plotly-plot")).to_have_count(0)
    page.get_by_text("My own prompts").click()
    rest(page)
    page.get_by_role("textbox", name="Set A").fill(_prompts("kalo", "mi", "tenra", "so"))
    page.get_by_role("textbox", name="Set B").fill("vel")
    page.get_by_role("textbox", name="Set B").press("Control+Enter")
    rest(page)
    run.click()
    expect(page.get_by_text("holds 1 prompt")).to_be_visible()
    page.get_by_role("textbox", name="Set B").fill(_prompts("vel", "du", "pi", "nor"))
    page.get_by_role("textbox", name="Set B").press("Control+Enter")
    rest(page)
    run.click()
    chart = page.locator(".js-plotly-plot").first
    expect(chart.locator(".main-svg").first).to_be_visible(timeout=PATIENCE_MS)
    rest(page)
    for words in ("permuted labels", "random halves of one set", "cosine of the two sets’ means"):
        expect(chart.locator(".legendtext").get_by_text(words, exact=True)).to_be_visible()
    # A click on what the last layer gives selects it on every page.
    _marks(page).last.click(force=True)
    until(lambda: params(page).get("layer") == "1")
    rest(page)
    for tab in ("Why variance grows", "Shared directions", "Samples", "The direction"):
        page.get_by_role("tab", name=tab).click()
        panel = page.get_by_role("tabpanel").filter(visible=True)
        expect(panel.locator(".main-svg").first).to_be_visible()
        expect(panel.locator("p").first).to_be_visible()
    expect(page.locator("[data-testid=stAlertContentError]")).to_have_count(0)
    # What is saved is whole, and the command's.
    report = json.loads(_save(page, "JSON", tmp_path))
    assert {row["layer"] for row in report["rows"]} == {0, 1}
    assert (report["n_positive"], report["n_negative"]) == (16, 16)
    html = _save(page, "HTML", tmp_path)
    assert "How the sets part" in html
    assert 'src="http' not in html
    assert len(_save(page, "CSV", tmp_path).splitlines()) == 1 + len(report["rows"])
    # Kept while another page is looked at.
    visit(page, "Heatmap")
    visit(page, "Contrast")
    expect(page.locator(".js-plotly-plot").first).to_be_visible()
    expect(page.get_by_role("button", name="Stop")).to_have_count(0)
