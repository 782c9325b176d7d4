"""From the landing page to a neuron's card by clicks alone."""

from __future__ import annotations

from urllib.parse import urlsplit

from playwright.sync_api import Page, expect

from tests.dashboard.browser.app import App, heading, params, rest, until, visit, wait_for_map


def test_from_the_landing_page_to_a_map_and_a_card(page: Page, app: App) -> None:
    page.goto(app.url)
    expect(heading(page)).to_have_text("Overview")
    grid = page.locator(".map-grid")
    until(lambda: int(grid.get_attribute("data-drawn") or 0) >= 4)
    rest(page)
    page.locator(".map-grid button").last.click()
    expect(heading(page)).to_have_text("Layer 1: attention output")
    wait_for_map(page)
    rest(page)
    assert params(page)["site"] == "attn_out"
    # The first page opens by its own address too, and by the menu.
    visit(page, "Overview")
    expect(heading(page)).to_have_text("Overview")
    page.goto(app.link("overview", layer=1, color="plaid"))
    expect(heading(page)).to_have_text("Overview")
    assert urlsplit(str(page.evaluate("location.href"))).path == "/overview"
    expect(page.get_by_test_id("stAlert")).to_contain_text("no colouring 'plaid'")
    rest(page)
    page.goto(app.link("start", layer=1))
    expect(heading(page)).to_have_text("Overview")
    expect(page.get_by_text("Page not found")).to_have_count(0)
    rest(page)
    # A neuron by its name, and its card by a link.
    field = page.get_by_role("textbox", name="Search")
    field.fill("L0 N3")
    field.press("Enter")
    page.get_by_role("link", name="Open L0 N3").click()
    expect(heading(page)).to_contain_text("L0 N3")
    assert params(page)["neuron"] == "3"
