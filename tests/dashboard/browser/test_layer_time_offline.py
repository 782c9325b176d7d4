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


def _rests(page: Page, frame: int) -> None:
    until(lambda: float(_state(page)["at"]) == frame)


def _view(page: Page) -> dict[str, list[float]]:
    found: dict[str, list[float]] = json.loads(_state(page)["view"])
    return found


def _density(page: Page) -> dict[str, float]:
    """Of the picture below the particles: how much of it is the page's, and its least red; and
    whether all below the frame's name is the page's."""
    found: dict[str, float] = page.locator("canvas.under").evaluate(
        """canvas => {
          const own = canvas.getContext("2d");
          const { data } = own.getImageData(0, 0, canvas.width, canvas.height);
          let [page, least] = [0, 255];
          for (let i = 0; i < data.length; i += 4) {
            const red = data[i + 3] ? data[i] : 255;
            if (red > 250) page += 1;
            // Axes are grey: as red as they are blue.
            const isHued = data[i + 3] === 255 && Math.abs(data[i] - data[i + 2]) > 20;
            if (isHued) least = Math.min(least, red);
          }
          const name = own.getImageData(14, 12, 80, 18).data;
          const isFree = name.every((value, i) => i % 4 !== 0 || !name[i + 3] || value > 250);
          return { page: page / (data.length / 4), least, isFree };
        }"""
    )
    return found


def _follows(page: Page) -> None:
    """The scale follows the frames about one centre, and the picture says so."""
    assert _state(page)["note"] == ""
    assert page.locator(".measure.paled").count() == 0
    _press(page, "End", 3)
    whole = _view(page)
    page.locator('[data-name="follow"]').click()
    until(lambda: "magnified" in _state(page)["note"])
    views = []
    for frame in (3, 2, 1, 0):
        _press(page, str("End" if frame == 3 else "["), frame)
        _rests(page, frame)
        views.append(_view(page))
    assert len({tuple(each["middle"]) for each in views}) == 1
    widths = [max(each["reach"]) for each in views]
    assert max(widths) > 1.5 * min(widths)
    # Half way between two frames it is between both.
    page.locator(".slider").evaluate(
        "e => { e.value = '0.5'; e.dispatchEvent(new Event('input')); }"
    )
    until(lambda: _state(page)["at"] == "0.500")
    half = max(_view(page)["reach"])
    assert min(widths[2:]) < half < max(widths[2:])
    assert _view(page)["middle"] == views[0]["middle"]
    expect(page.locator(".measure.paled .what")).to_have_text("moves")
    expect(page.locator(".of-map")).to_be_visible()
    page.locator('[data-name="follow"]').click()
    until(lambda: _state(page)["note"] == "")
    expect(page.locator(".of-map")).to_be_hidden()
    assert _view(page) == whole


def _keys_are_of_what_is_used(page: Page) -> None:
    """Keys move among tokens, and are not taken from a field; the slider has no brackets."""
    _press(page, "Home", 0)
    page.locator(".slider").focus()
    _press(page, "]", 1)
    page.locator(".speed").select_option("0.35")
    _press(page, "]", 2)
    _chip(page, 0, len(A) - 1).focus()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Space")
    until(lambda: _state(page)["held"] == str(len(A) - 2))
    assert (_state(page)["playing"], _state(page)["frame"]) == ("false", "2")
    page.locator(".lens .row.now").focus()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    _comes(page, 1)
    page.evaluate("document.body.prepend(document.createElement('input'))")
    page.locator("body > input").focus()
    page.keyboard.type(" []r")
    page.keyboard.press("End")
    page.wait_for_timeout(100)
    assert page.locator("body > input").input_value() == " []r"
    assert (_state(page)["playing"], _state(page)["frame"]) == ("false", "1")
    page.evaluate("document.querySelector('body > input').remove()")
    # What is out of sight takes no key from the page.
    page.evaluate("document.body.style.paddingTop = '3000px'")
    page.keyboard.press("End")
    page.wait_for_timeout(100)
    assert _state(page)["frame"] == "1"
    page.evaluate("document.body.style.paddingTop = ''; scrollTo(0, 0)")


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
    # Curves have a key; an outlier that is outside of the view is marked at its edge.
    expect(page.locator(".trust .key")).to_contain_text("dashed: ")
    expect(page.locator(".legends")).to_contain_text("A alone and B alone: ")
    _press(page, "End", 3)
    until(lambda: "<s>" in _state(page)["leaving"])
    assert "sat" not in _state(page)["leaving"]
    _press(page, "Home", 0)
    # Text from a model stays text.
    assert _chip(page, 0, 3).inner_text() == ATTACK
    _chip(page, 0, 3).click()
    expect(page.locator(".in-hand .name")).to_have_text(ATTACK)
    assert page.locator("img").count() == 0
    _follows(page)
    _keys_are_of_what_is_used(page)
    # The density lies flat: in each frame there are dense places and empty ones, on one scale whose
    # numbers are below.
    page.locator('[data-name="density"]').click()
    expect(page.locator(".legends")).to_contain_text("density of A0")
    for key, frame in (("Home", 0), ("End", 3)):
        _press(page, key, frame)
        _rests(page, frame)
        found = _density(page)
        assert found["isFree"]
        assert found["page"] > 0.3
        assert found["least"] < 170
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
