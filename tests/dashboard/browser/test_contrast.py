"""Two sets of prompts in the browser: a run goes on, is stopped, and is found again."""

from __future__ import annotations

import json
from pathlib import Path

from playwright.sync_api import Locator, Page, expect

from tests.dashboard.browser.app import PATIENCE_S, App, params, rest, until, visit

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


def _fill(page: Page, positive: str, negative: str) -> None:
    page.get_by_role("textbox", name="Set A").fill(positive)
    page.get_by_role("textbox", name="Set B").fill(negative)
    page.get_by_role("textbox", name="Set B").press("Control+Enter")
    rest(page)


def test_two_sets_are_compared_and_their_layers_chosen(
    page: Page, app: App, tmp_path: Path
) -> None:
    page.goto(app.link("contrast", layer=0, source="own"))
    run = page.get_by_role("button", name="Run", exact=True)
    expect(page.get_by_text("Press Run to compare")).to_be_visible()
    _fill(page, _prompts("kalo", "mi", "tenra", "so"), "vel")
    run.click()
    expect(page.get_by_text("Set B holds 1 prompt")).to_be_visible()
    _fill(page, _prompts("kalo", "mi", "tenra", "so"), _prompts("vel", "du", "pi", "nor"))
    # It goes on while another page is looked at, and is there without another click.
    run.click()
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    visit(page, "Heatmap")
    expect(page.locator(".js-plotly-plot").first).to_be_visible()
    visit(page, "Contrast")
    chart = page.locator(".js-plotly-plot").first
    expect(chart.locator(".main-svg").first).to_be_visible(timeout=PATIENCE_MS)
    rest(page)
    expect(run).to_be_enabled()
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
    assert "report.json" not in html
    assert 'class="figure"' in html
    assert 'src="http' not in html
    assert len(_save(page, "CSV", tmp_path).splitlines()) == 1 + len(report["rows"])
    # The part that was open is open again, and what was run is found by the link.
    visit(page, "Heatmap")
    visit(page, "Contrast")
    panel = page.get_by_role("tabpanel").filter(visible=True)
    expect(page.get_by_role("tab", name="The direction")).to_have_attribute("aria-selected", "true")
    expect(panel.locator(".main-svg").first).to_be_visible()
    page.reload()
    expect(page.get_by_role("textbox", name="Set B")).to_have_value(
        _prompts("vel", "du", "pi", "nor")
    )
    expect(chart.locator(".main-svg").first).to_be_visible()
    # Stopped, it is over: what was shown is told to be older, and nothing begins again.
    page.get_by_text("mean of tokens", exact=True).click()
    rest(page)
    run.click()
    page.get_by_role("button", name="Stop").click()
    rest(page)
    expect(page.get_by_role("button", name="Stop")).to_have_count(0)
    expect(
        page.get_by_text("This report compares Set A against Set B at the last token")
    ).to_be_visible()
    expect(chart.locator(".main-svg").first).to_be_visible()
