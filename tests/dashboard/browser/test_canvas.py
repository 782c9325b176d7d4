"""A browser without WebGL: slower, and nothing is missing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, Playwright

from tests.dashboard.browser.app import (
    App,
    Watch,
    camera,
    drawn,
    params,
    pixels,
    point_at_one,
    rest,
    run_prompt,
    turn,
    until,
    wait_for_map,
)
from tests.dashboard.browser.conftest import NO_WEBGL
from tests.families import N_NEURONS


@pytest.fixture(scope="module")
def plain(chromium: str, playwright: Playwright) -> Iterator[Browser]:
    opened = playwright.chromium.launch(executable_path=chromium, args=list(NO_WEBGL))
    yield opened
    opened.close()


@pytest.fixture
def page(plain: Browser, app: App, watch: Watch) -> Iterator[Page]:
    opened = plain.new_page(viewport={"width": 1440, "height": 1000})
    watch.follow(opened, app.url)
    yield opened
    opened.close()


def test_points_are_drawn_turned_and_picked(page: Page, app: App) -> None:
    page.goto(app.link())
    state = wait_for_map(page)
    assert state["renderer"] == "canvas"
    assert int(state["points"]) == N_NEURONS
    before = camera(page)
    turn(page, 70, 10)
    assert camera(page)["yaw"] != before["yaw"]
    x, y, told = point_at_one(page)
    page.mouse.move(5, 5)
    assert len(pixels(page, x, y)) > 1
    page.mouse.click(x, y)
    until(lambda: told[0] == f"L0 N{params(page).get('neuron')}")


def test_a_prompt_plays(page: Page, app: App) -> None:
    page.goto(app.link("prompt"))
    rest(page)
    run_prompt(page, "kalo mi tenra", n_new=8)
    assert wait_for_map(page)["renderer"] == "canvas"
    rest(page)
    page.keyboard.press("Home")
    until(lambda: drawn(page)["token"] == "0")
    first = page.locator(".neuron-map .stage").screenshot()
    page.keyboard.press("ArrowRight")
    until(lambda: drawn(page)["token"] == "1")
    assert page.locator(".neuron-map .stage").screenshot() != first
    page.keyboard.press(" ")
    until(lambda: int(drawn(page)["token"]) >= 3)
