"""Groups on a flat map, on a saved page: what it does, it does without a server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from dashboard.components.neuron_map import Panel, View, standalone_html
from dashboard.drawing.legend import Group, Groups
from tests.dashboard.browser.app import camera, drawn, until, wait_for_map

N_GROUPS, N_EACH, N_NOISE = 12, 9, 60
N = N_GROUPS * N_EACH + N_NOISE
NAMES = ["self", "<b>(</b>", "CAPITAL", "return", *(f"word {k}" for k in range(8))]


def view(height: int = 480) -> View:
    """Groups in a circle, noise around: the last three groups lie on one place."""
    rng = np.random.default_rng(0)
    angles = np.minimum(np.arange(N_GROUPS), 9) * 2 * np.pi / 10
    middles = np.repeat(3 * np.stack([np.cos(angles), np.sin(angles)], 1), N_EACH, axis=0)
    flat = np.concatenate(
        [middles + rng.normal(0, 0.12, middles.shape), rng.normal(0, 0.5, (N_NOISE, 2))]
    )
    points = np.zeros((N, 3), dtype=np.float32)
    points[:, :2] = flat
    membership = np.full(N, -1, dtype=np.int16)
    membership[: N_GROUPS * N_EACH] = np.repeat(np.arange(N_GROUPS), N_EACH)
    items = tuple(
        Group(
            number=k + 20,
            label=NAMES[k],
            title=f"pole {k + 20}, {NAMES[k]}",
            size=N_EACH,
            rho=0.5 - k / 100,
            state="distinct" if k < 9 else "weak",
            color=min(k + 1, 9),
            shared=k > 7,
            note="",
        )
        for k in range(N_GROUPS)
    )
    values = np.where(membership < 0, 0, np.minimum(membership + 1, 9)).astype(np.uint8)
    panel = Panel(
        "Layer 3",
        "L3",
        points,
        values,
        selected=0,
        near=tuple((near, 0.85 - k / 20) for k, near in enumerate((1, 2, 3, *range(40, 101, 10)))),
        groups=Groups(membership, items, "12 poles", "9 distinct", ""),
        is_by_group=True,
        labels=tuple(f"fires {k}" for k in range(N)),
        snippets=("def method(self)", *[""] * (N - 1)),
    )
    return View([panel], 2, height=height, axes=None, beside=0, has_lasso=True)


@pytest.fixture
def page(browser: Browser, tmp_path: Path) -> Page:
    path = tmp_path / "map.html"
    # What a server would be told is kept instead.
    told = "setTriggerValue: (name, value) => (window.told ||= []).push([name, value])"
    text = standalone_html(view(), "Map").replace("setTriggerValue: nothing", told)
    path.write_text(text, encoding="utf-8")
    opened = browser.new_page(viewport={"width": 1100, "height": 440}, color_scheme="light")
    opened.problems = []  # type: ignore[attr-defined]
    opened.on("pageerror", lambda error: opened.problems.append(str(error)))  # type: ignore[attr-defined]
    opened.goto(path.as_uri())
    wait_for_map(opened)
    yield opened  # type: ignore[misc]
    assert opened.problems == []  # type: ignore[attr-defined]
    opened.close()


def lit(page: Page) -> int:
    return int(drawn(page)["lit"])


def told(page: Page) -> list[list[Any]]:
    found: list[list[Any]] = page.evaluate("window.told || []")
    return found


def names(page: Page) -> list[str]:
    found: list[str] = json.loads(drawn(page)["names"])
    return found


def test_list_and_map_light_each_other_s_groups(page: Page) -> None:
    rows = page.locator(".neuron-map .row.group")
    expect(rows).to_have_count(N_GROUPS)
    # Text is text.
    expect(rows.nth(1)).to_contain_text("<b>(</b>")
    expect(rows.nth(0)).to_contain_text("0.50")
    expect(page.locator(".neuron-map .part")).to_have_text(["Weak: not above chance"])
    # The chosen neuron and its nearest.
    assert lit(page) == 11
    rows.nth(5).hover()
    until(lambda: lit(page) > 11)
    rows.nth(5).click()
    expect(rows.nth(5)).to_have_attribute("aria-pressed", "true")
    page.mouse.move(5, 5)
    # Neuron 50 is among the nearest, and of that group.
    until(lambda: lit(page) == 11 + N_EACH - 1)
    rows.nth(5).press("Enter")
    until(lambda: lit(page) == 11)
    assert told(page) == [["chosen", {"panel": 0, "pole": pole}] for pole in (25, None)]
    # And back: what the pointer rests on is told, and its row shown.
    stage = page.locator(".neuron-map .overlay")
    box = stage.bounding_box()
    assert box is not None
    # The first group lies at the right.
    for across in range(int(box["width"]) - 20, int(box["width"] / 2), -3):
        stage.hover(position={"x": across, "y": box["height"] / 2})
        page.wait_for_timeout(30)
        if page.locator(".neuron-map .tip").is_visible():
            break
    tip = page.locator(".neuron-map .tip")
    expect(tip).to_contain_text("fires ")
    expect(tip).to_contain_text("pole 20, self")
    expect(rows.nth(0)).to_have_class("row group distinct pointed")


def test_names_do_not_lie_over_one_another_and_come_with_nearness(page: Page) -> None:
    first = names(page)
    assert {"L3 N0  fires 0", "CAPITAL", "<b>(</b>"} <= set(first)
    # Three weak groups lie on one place, where two of the nearest are named already.
    assert len({"word 5", "word 6", "word 7"} & set(first)) < 2
    overlay = page.locator(".neuron-map .overlay")
    n_before = len(first)
    for _ in range(9):
        overlay.press("+")
    # Single neurons are named from near.
    until(lambda: any(name.startswith("fires ") and name not in first for name in names(page)))
    assert len(names(page)) != n_before


def test_the_nearest_are_isolated_and_all_shown_again(page: Page) -> None:
    near = page.locator(".neuron-map .row.near")
    expect(near).to_have_count(10)
    expect(near.first).to_contain_text("0.85")
    assert int(drawn(page)["seen"]) == N
    page.get_by_role("button", name="Isolate").click()
    until(lambda: int(drawn(page)["seen"]) == 11)
    page.get_by_role("button", name="Show all").click()
    until(lambda: int(drawn(page)["seen"]) == N)
    assert told(page) == [["isolated", {"panel": 0, "neuron": n}] for n in (0, None)]
    # A neighbour leads on; who is near it, a saved page does not know.
    near.nth(3).click()
    expect(page.locator(".neuron-map .nearest .head")).to_contain_text("L3 N40")
    expect(near).to_have_count(0)
    assert told(page)[-1] == ["picked", {"panel": 0, "neuron": 40}]


def test_a_lasso_marks_what_is_within(page: Page) -> None:
    page.get_by_role("button", name="Lasso").click()
    box = page.locator(".neuron-map .overlay").bounding_box()
    assert box is not None
    x, y = box["x"], box["y"]
    page.mouse.move(x + 50, y + 50)
    page.mouse.down()
    before = camera(page)
    for dx, dy in ((1, 0), (1, 1), (0, 1)):
        page.mouse.move(
            x + 50 + dx * (box["width"] - 60), y + 50 + dy * (box["height"] - 60), steps=4
        )
    page.mouse.up()
    until(lambda: lit(page) > 100)
    # It moves nothing, and is done.
    assert camera(page) == before
    expect(page.get_by_role("button", name="Lasso")).to_have_attribute("aria-pressed", "false")
    ((name, value),) = told(page)
    assert name == "marked"
    assert value["panel"] == 0
    # Most of them, and none that is not there.
    assert N / 2 < len(value["neurons"]) < N
    assert value["neurons"] == sorted(set(value["neurons"]) & set(range(N)))


def test_the_wheel_scrolls_the_page_until_the_map_is_asked(page: Page) -> None:
    page.locator(".neuron-map .stage").hover()
    start = camera(page)
    page.mouse.wheel(0, 120)
    until(lambda: page.evaluate("window.scrollY") > 0)
    expect(page.locator(".neuron-map .hint")).to_have_class("hint seen")
    assert camera(page) == start
    expect(page.locator(".neuron-map .hint")).to_have_class("hint", timeout=8000)
    # With Ctrl it zooms, as a pinch does; the page stays.
    page.evaluate("window.scrollTo(0, 0)")
    page.keyboard.down("Control")
    page.mouse.wheel(0, -120)
    page.keyboard.up("Control")
    until(lambda: camera(page)["zoom"] > 1)
    assert page.evaluate("window.scrollY") == 0
    # After a click too, until the pointer leaves the map; a double click shows all again.
    page.mouse.dblclick(*_empty(page))
    until(lambda: camera(page) == start)
    page.mouse.wheel(0, -120)
    until(lambda: camera(page)["zoom"] > 1)
    page.mouse.move(2, 2)
    page.locator(".neuron-map .stage").hover()
    page.mouse.wheel(0, 120)
    until(lambda: page.evaluate("window.scrollY") > 0)


def _empty(page: Page) -> tuple[float, float]:
    """A place of the map without a neuron."""
    box = page.locator(".neuron-map .overlay").bounding_box()
    assert box is not None
    return box["x"] + 15, box["y"] + 15
