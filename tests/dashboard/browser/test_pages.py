"""Every page in both themes: nothing missing, nothing cut off; and a picture of it, if asked for.

``ARTIFACTS`` names the folder that pictures go to.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.dashboard.browser.app import (
    NAMES,
    PAGES,
    PATIENCE_S,
    App,
    cells,
    params,
    rest,
    run_prompt,
    the_map,
    until,
    visit,
    wait_for_map,
)
from tests.families import N_NEURONS

# Elements whose text is cut off, and whether the page is wider than the window.
_CUT_OFF = """() => {
  const cut = [...document.querySelectorAll(
    "[data-testid=stMetricValue] *, [data-testid=stMetricLabel] *, h1, h2, h3, label p, button p")]
    .filter((e) => e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).overflow === "hidden")
    .map((e) => e.textContent);
  const wide = document.documentElement.scrollWidth > window.innerWidth;
  return wide ? [...cut, "the page is wider than the window"] : cut;
}"""

# How bright a theme's ground is, from 0 to 255.
_GROUNDS: dict[Literal["light", "dark"], tuple[int, int]] = {"dark": (0, 80), "light": (200, 255)}
_GROUND = """() => +getComputedStyle(document.querySelector("[data-testid=stApp]"))
  .backgroundColor.match(/\\d+/)[0]"""


def _keep(page: Page, name: str) -> None:
    folder = os.environ.get("ARTIFACTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=Path(folder) / f"{name}.png")


@pytest.fixture(scope="module")
def prompt_id(browser: Browser, app: App) -> str:
    """Of a prompt that was run."""
    page = browser.new_page()
    page.goto(app.link("prompt"))
    rest(page)
    run_prompt(page, "kalo mi tenra so vel du pi nor", n_new=8)
    wait_for_map(page)
    # The link follows what is shown.
    until(lambda: "prompt" in params(page))
    found = params(page)["prompt"]
    page.close()
    return found


def test_every_page_is_whole(page: Page, app: App, prompt_id: str) -> None:
    page.goto(app.link(layer=1, neuron=12, pole=0, prompt=prompt_id, token=4))
    for path in PAGES:
        _open(page, path)
        if path in ("map", "prompt"):
            wait_for_map(page)
        if path in ("heatmap", "poles", "pruning"):
            expect(page.locator(".js-plotly-plot .main-svg").first).to_be_visible()
        for theme, (low, high) in _GROUNDS.items():
            page.emulate_media(color_scheme=theme)
            until(lambda low=low, high=high: low <= page.evaluate(_GROUND) <= high)
            rest(page)
            _keep(page, f"{path}-{theme}")
            assert page.evaluate(_CUT_OFF) == [], (path, theme)
            expect(page.locator("[data-testid=stAlertContentError]")).to_have_count(0)


def test_every_page_is_whole_for_an_encoder(page: Page, app: App) -> None:
    """It has captions of its own."""
    page.goto(app.link(projection="bert", model="models/bert", neuron=3))
    for path in PAGES:
        _open(page, path)
        assert page.evaluate(_CUT_OFF) == [], path
        expect(page.locator("[data-testid=stAlertContentError]")).to_have_count(0)


def _open(page: Page, path: str) -> None:
    visit(page, NAMES.get(path, path.capitalize()))
    until(lambda: urlsplit(str(page.evaluate("location.href"))).path == f"/{path}")


def test_a_narrow_window_holds_the_map(open_page: Callable[..., Page], app: App) -> None:
    page = open_page(viewport={"width": 700, "height": 900})
    page.goto(app.link(layer=1))
    wait_for_map(page)
    rest(page)
    assert page.evaluate(_CUT_OFF) == []
    _keep(page, "map-narrow")


def test_a_report_and_a_plan_are_shown(page: Page, app: App) -> None:
    page.goto(app.link("pruning"))
    expect(page.locator(".js-plotly-plot .main-svg").first).to_be_visible()
    text = " ".join(cells(page.get_by_test_id("stDataFrame").first))
    assert "flap" in text
    assert "±" in text
    page.get_by_role("tab", name="Removed neurons").click()
    state = wait_for_map(page)
    assert int(state["points"]) == N_NEURONS
    expect(the_map(page)).to_contain_text("removed")


def test_a_sweep_is_followed_to_its_end(page: Page, app: App) -> None:
    page.goto(app.link("pruning"))
    rest(page)
    page.get_by_role("tab", name="New sweep").click()
    page.get_by_role("textbox", name="Calibration text").fill("seen.txt")
    page.get_by_role("textbox", name="Evaluation text").fill("unseen.txt")
    page.get_by_role("spinbutton", name="Calibration sequences").fill("16")
    page.get_by_role("textbox", name="Shares to remove").fill("0.2")
    name = page.get_by_role("textbox", name="Name of the report")
    name.fill("from-the-page")
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_text(re.compile("from-the-page: 0 of"))).to_be_visible()
    # Until the page has run to its end, the field of the run before may still be there.
    expect(name.and_(page.locator("[value='from-the-page-2']"))).to_be_visible()
    expect(name).to_have_count(1)
    # It is looked at until it ends, and then no more.
    done = page.get_by_text(re.compile("from-the-page: done, 9 of 9 models"))
    expect(done).to_be_visible(timeout=4 * PATIENCE_S * 1000)
    expect(page.get_by_role("button", name="Stop")).to_have_count(0)
    page.get_by_role("button", name="Remove", exact=True).click()
    expect(done).to_have_count(0)
    assert (app.root / "from-the-page" / "report.json").exists()
