"""A saved layer-time, opened from the disk: it plays, has the keys, and asks for nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Locator, Page, expect

from projector.figures.layer_time.page import write_layer_time_page
from tests.dashboard.browser.app import Watch, until
from tests.projector.figures.layer_time.made import ATTACK, A, B, two_prompts


def _state(page: Page) -> dict[str, Any]:
    found: dict[str, Any] = page.locator(".layer-time").evaluate("e => ({ ...e.dataset })")
    return found


def _chip(page: Page, prompt: int, token: int) -> Locator:
    return page.locator(f'.chip[data-prompt="{prompt}"][data-token="{token}"]')


def _zoom(page: Page) -> float:
    return float(json.loads(_state(page)["camera"])["zoom"])


def _comes(page: Page, frame: int) -> None:
    until(lambda: int(_state(page)["frame"]) == frame)


def _press(page: Page, key: str, frame: int) -> None:
    page.keyboard.press(key)
    _comes(page, frame)


def test_it_plays_steps_and_shows_hostile_text_as_text(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "layer-time.html"
    write_layer_time_page(*two_prompts(n_layers=3), path)
    page = browser.new_page(viewport={"width": 1100, "height": 700})
    watch, requested = Watch(), list[str]()
    watch.follow(page, "file://")
    page.on("request", lambda request: requested.append(request.url))
    page.goto(path.as_uri())
    # Nothing was clicked: it plays, over all frames and from the start again.
    for frame in (1, 2, 3):
        _comes(page, frame)
    _comes(page, 0)
    assert _state(page)["playing"] == "true"
    page.keyboard.press(" ")
    until(lambda: _state(page)["playing"] == "false")
    at = _state(page)["at"]
    assert float(at).is_integer()
    page.wait_for_timeout(300)
    assert _state(page)["at"] == at
    _press(page, "Home", 0)
    _press(page, "]", 1)
    _press(page, "ArrowRight", 2)
    _press(page, "[", 1)
    _press(page, "ArrowLeft", 0)
    _press(page, "End", 3)
    expect(page.locator(".frame-name")).to_have_text("layer 2")
    # A plain wheel is the page's, and with Ctrl it zooms, also after a click into the picture.
    page.mouse.click(300, 300)
    page.mouse.wheel(0, 120)
    until(lambda: page.evaluate("scrollY") > 0)
    assert _zoom(page) == 1
    page.evaluate("scrollTo(0, 0)")
    page.keyboard.down("Control")
    page.mouse.wheel(0, -120)
    page.keyboard.up("Control")
    until(lambda: _zoom(page) > 1)
    # A token takes its particle in hand; its partner lights up; the lens is of this frame.
    _chip(page, 0, len(A) - 1).click()
    until(lambda: _state(page)["held"] == str(len(A) - 1))
    expect(page.locator(".chip.partner")).to_have_attribute("data-token", str(len(B) - 1))
    expect(page.locator(".lens .row.now .what")).to_have_text(f"␣3.{len(A) - 1}")
    _press(page, "Home", 0)
    expect(page.locator(".lens .row.now .what")).to_have_text(f"␣0.{len(A) - 1}")
    expect(page.locator(".trust .value").first).to_have_text("0.90")
    # Text from a model stays text.
    assert _chip(page, 0, 3).inner_text() == ATTACK
    _chip(page, 0, 3).click()
    expect(page.locator(".in-hand .name")).to_have_text(ATTACK)
    assert page.locator("img").count() == 0
    # The density lies flat, with every colour scale's numbers beside it.
    page.locator('[data-name="density"]').click()
    expect(page.locator(".legends")).to_contain_text("densest place of all frames")
    page.locator(".color-by select").select_option("norm")
    expect(page.locator(".legends")).to_contain_text("norm of the vector≤")
    assert requested == [path.as_uri()]
    assert watch.problems == []
    page.close()
    # Who wants no motion finds it at rest, on the token that the file was saved with.
    write_layer_time_page(*two_prompts(), path, selected={"prompt": 1, "token": 2})
    still = browser.new_page(reduced_motion="reduce")
    still.goto(path.as_uri())
    until(lambda: int(_state(still).get("painted", 0)) > 0)
    still.wait_for_timeout(200)
    assert (_state(still)["playing"], _state(still)["at"]) == ("false", "0.000")
    assert _state(still)["held"] == str(len(A) + 2)
    still.close()
