"""From the landing page to a neuron's card by clicks alone; and by a search to a pole."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Page, expect

from projector.naming.search import search
from projector.projection.projection import Projection
from pruning.poles.finding_all import PoleRequest, find_all
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


def test_a_result_of_a_search_opens_its_pole_or_its_neuron(
    page: Page, app: App, folders: Path
) -> None:
    folder = folders / "llama"
    find_all(folder, PoleRequest(with_controls=False))
    found = search(Projection.load(folder), folder, "the")
    pole, neuron = found.poles[0], found.neurons[0]
    # Other poles are looked at: a result's are those of the usual settings.
    page.goto(app.link("poles", projection="llama", grouping="correlation,2,eom,0"))
    rest(page)
    side = page.get_by_test_id("stSidebar")
    field = side.get_by_role("textbox", name="Search")
    field.fill("the")
    field.press("Enter")
    link = side.get_by_role("link", name=re.compile(rf"^L{pole.layer}\b.* pole {pole.pole}\b"))
    expect(link).to_contain_text(pole.label)
    link.click()
    expect(heading(page)).to_have_text(re.compile(f"^Poles in layer {pole.layer}: "))
    name = page.get_by_role("heading", name=re.compile(rf"^Pole {pole.pole}: .*the\b"))
    expect(name).to_be_visible()
    rest(page)
    assert "grouping" not in params(page)
    # What was searched for is listed still.
    link = side.get_by_role("link", name=re.compile(rf"^L{neuron.layer}\b.* N{neuron.neuron}\b"))
    link.click()
    expect(heading(page)).to_have_text(re.compile(rf"^L{neuron.layer} N{neuron.neuron}\b"))
    expect(page.get_by_test_id("stMainBlockContainer")).to_contain_text(neuron.label)
    rest(page)
    assert params(page)["neuron"] == str(neuron.neuron)
    assert params(page)["layer"] == str(neuron.layer)
    # A link from a page to itself is in the address too, and one step back leads before it.
    near = page.get_by_test_id("stMainBlockContainer").get_by_role("link", name=re.compile(r"^N\d"))
    number = near.first.inner_text().split()[0]
    near.first.click()
    expect(heading(page)).to_have_text(re.compile(rf"^L{neuron.layer} {number}\b"))
    rest(page)
    assert params(page)["neuron"] == number[1:]
    assert "here" not in params(page)
    page.go_back()
    expect(heading(page)).to_have_text(re.compile(rf"^L{neuron.layer} N{neuron.neuron}\b"))
