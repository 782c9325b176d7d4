"""The first screen, and the map: drawn, turned, pointed at, searched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psutil
from playwright.sync_api import Browser, Page, expect

from tests.dashboard.browser.app import (
    App,
    Watch,
    camera,
    choose,
    drawn,
    heading,
    params,
    pixels,
    point_at_one,
    rest,
    serve,
    the_map,
    turn,
    until,
    visit,
    wait_for_map,
)
from tests.families import N_HIDDEN, N_NEURONS

# Positions that the browser was sent and lost: the first array of floats that is kept.
LOSE_THE_FIRST = """
const set = Map.prototype.set;
window.nLost = 0;
Map.prototype.set = function (key, value) {
  if (value instanceof Float32Array && window.nLost === 0) {
    window.nLost += 1;
    return this;
  }
  return set.call(this, key, value);
};
"""


def test_the_map_opens_with_the_first_layer(page: Page, app: App) -> None:
    page.goto(app.link())
    expect(heading(page)).to_have_text("Layer 0: MLP neurons")
    state = wait_for_map(page)
    assert state["renderer"] == "webgl2"
    assert int(state["points"]) == N_NEURONS
    page.get_by_text("How faithful is this map?").click()
    trust = page.get_by_test_id("stMetricLabel")
    expect(trust).to_have_text(
        ["Neighbours kept", "Stress", "Stability", "In no pole"], use_inner_text=True
    )
    expect(page.get_by_test_id("stMetricValue").first).to_contain_text("of 10")
    expect(page.get_by_test_id("stSidebar")).to_contain_text(f"{N_NEURONS} neurons, 3 dimensions")
    # Points first, their poles after; the link tells what is shown once all is there.
    until(lambda: params(page).get("projection") == "decoder")


def test_the_app_listens_on_this_machine_alone(app: App) -> None:
    process = psutil.Process(app.pid)
    processes = [process, *process.children(recursive=True)]
    listening = [
        connection.laddr.ip
        for each in processes
        for connection in each.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening
    assert set(listening) <= {"127.0.0.1", "::1"}


def test_another_layer_keeps_the_camera_and_the_node(page: Page, app: App) -> None:
    page.goto(app.link())
    first = wait_for_map(page)
    turn(page, 140, -50)
    turned = camera(page)
    the_map(page).evaluate("e => { e.mark = 'the same'; }")
    page.get_by_role("slider", name="Layer").press("ArrowRight")
    expect(heading(page)).to_have_text("Layer 1: MLP neurons")
    state = until(lambda: (now := drawn(page))["shown"] != first["shown"] and now)
    assert camera(page) == turned
    assert the_map(page).evaluate("e => e.mark") == "the same"
    assert int(state["points"]) == N_NEURONS
    # And colours too are another matter than the camera.
    choose(page, "Colour", "Variance")
    until(lambda: drawn(page)["shown"] != state["shown"])
    assert camera(page) == turned


def test_the_camera_is_found_again_on_the_way_back(page: Page, app: App) -> None:
    page.goto(app.link())
    wait_for_map(page)
    turn(page, -90, 30)
    turned = camera(page)
    visit(page, "Poles")
    expect(heading(page)).to_have_text("Poles in layer 0: MLP neurons")
    page.wait_for_timeout(1500)
    visit(page, "Map")
    wait_for_map(page)
    assert camera(page) == turned
    page.locator(".neuron-map .overlay").press("r")
    until(lambda: camera(page) != turned)
    assert camera(page)["zoom"] == 1


def test_keys_and_wheel_move_the_camera(page: Page, app: App) -> None:
    page.goto(app.link())
    wait_for_map(page)
    overlay = page.locator(".neuron-map .overlay")
    start = camera(page)
    overlay.press("ArrowLeft")
    until(lambda: camera(page)["yaw"] > start["yaw"])
    overlay.press("ArrowDown")
    until(lambda: camera(page)["pitch"] < start["pitch"])
    overlay.press("+")
    until(lambda: camera(page)["zoom"] > start["zoom"])
    closer = camera(page)["zoom"]
    overlay.hover()
    page.keyboard.down("Control")
    page.mouse.wheel(0, 300)
    page.keyboard.up("Control")
    until(lambda: camera(page)["zoom"] < closer)


def test_a_click_chooses_the_neuron_and_leads_to_its_card(page: Page, app: App) -> None:
    page.goto(app.link())
    wait_for_map(page)
    turn(page, 60, 20)
    turned = camera(page)
    x, y, told = point_at_one(page)
    name = told[0]
    assert name.startswith("L0 N")
    assert any(line.startswith("mean activation") for line in told)
    page.mouse.move(5, 5)
    # What is pointed at is what is seen: points are drawn where they are picked.
    assert len(pixels(page, x, y)) > 1
    page.mouse.click(x, y)
    until(lambda: params(page).get("neuron") == name.removeprefix("L0 N"))
    rest(page)
    assert camera(page) == turned
    expect(page.get_by_text(f"{name} ·")).to_be_visible()
    page.get_by_role("button", name="Open its card").click()
    expect(heading(page)).to_have_text(name)
    until(lambda: params(page).get("neuron") == name.removeprefix("L0 N"))
    expect(page.get_by_text("Most anti-correlated")).to_be_visible()


def test_what_is_chosen_beside_the_map_is_in_the_link(page: Page, app: App) -> None:
    page.goto(app.link(neuron=3, grouping="correlation,2,leaf,0"))
    wait_for_map(page)
    rows = page.locator(".neuron-map .row.group")
    expect(rows.first).to_be_visible()
    rest(page)
    rows.nth(1).click()
    until(lambda: params(page).get("pole") == rows.nth(1).get_attribute("data-pole"))
    rest(page)
    page.get_by_role("button", name="Isolate", exact=True).click()
    until(lambda: params(page).get("isolate") == "3")
    until(lambda: drawn(page)["seen"] == "11")
    page.reload()
    wait_for_map(page)
    until(lambda: drawn(page)["seen"] == "11")
    page.get_by_role("button", name="Show all", exact=True).click()
    until(lambda: "isolate" not in params(page))
    until(lambda: drawn(page)["seen"] == str(N_NEURONS))


def show_attention_too(page: Page) -> dict[str, str]:
    rest(page)
    page.get_by_text("Both sites").click()
    until(lambda: drawn(page)["points"] == str(N_NEURONS + N_HIDDEN))
    # Points first, their poles after.
    rest(page)
    return drawn(page)


def test_a_click_beside_chooses_the_site_too_and_moves_nothing(page: Page, app: App) -> None:
    page.goto(app.link())
    wait_for_map(page)
    before = show_attention_too(page)
    x, y, told = point_at_one(page, panel=1, n_panels=2)
    assert told[0].startswith("L0 attn out N")
    page.mouse.click(x, y)
    until(lambda: params(page).get("site") == "attn_out" and "neuron" in params(page))
    rest(page)
    # The map that was at the right is there still.
    assert drawn(page)["shown"] == before["shown"]
    expect(heading(page)).to_have_text("Layer 0: attention output")


def test_colours_and_sizes_are_drawn_and_told(page: Page, app: App) -> None:
    """Which there are, and what each is made of, tests of the page tell."""
    page.goto(app.link())
    wait_for_map(page)
    state = show_attention_too(page)
    choose(page, "Colour", "Importance")
    expect(page.locator(".neuron-map .legend").first).to_contain_text("Importance")
    before = drawn(page)["shown"]
    choose(page, "Size", "Variance")
    until(lambda: drawn(page)["shown"] != before)
    assert drawn(page)["points"] == state["points"]
    # What attention lacks is said below its map, and is no error.
    expect(page.locator(".neuron-map .legend").last).to_contain_text(
        "importance is defined only for MLP neurons"
    )
    expect(page.get_by_role("alert")).to_have_count(0)


def test_a_page_that_is_loaded_anew_gets_its_positions(page: Page, app: App) -> None:
    page.goto(app.link(layer=1, neuron=5))
    before = wait_for_map(page)["shown"]
    page.reload()
    assert wait_for_map(page)["shown"] == before


def test_positions_that_were_lost_are_asked_for(page: Page, app: App) -> None:
    page.add_init_script(LOSE_THE_FIRST)
    page.goto(app.link())
    until(lambda: page.evaluate("window.nLost") == 1)
    until(lambda: drawn(page).get("points") == str(N_NEURONS))


def test_the_map_follows_the_theme(open_page: Callable[..., Page], app: App) -> None:
    page = open_page(color_scheme="light")
    page.goto(app.link())
    wait_for_map(page)
    rest(page)
    box = page.locator(".neuron-map .stage").bounding_box()
    assert box is not None
    corner = (box["x"] + box["width"] / 2 - 30, box["y"] + 60)
    assert min(min(color) for color in pixels(page, *corner)) > 200
    page.emulate_media(color_scheme="dark")
    until(lambda: max(max(color) for color in pixels(page, *corner)) < 80)
    # Lines and text are drawn in the colours of the new theme.
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    until(lambda: any(min(c) > 120 for c in pixels(page, *middle, reach=200)))


def test_without_a_projection_there_is_a_way_to_one(
    browser: Browser, tmp_path: Path, chromium: str
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with serve(empty, tmp_path) as alone:
        page = browser.new_page()
        watch = Watch()
        watch.follow(page, alone.url)
        page.goto(alone.url)
        expect(heading(page)).to_have_text("No projection yet")
        page.get_by_role("button", name="Fit the bundled model now").click()
        expect(page.get_by_role("progressbar")).to_be_visible()
        page.get_by_role("button", name="Stop").click()
        expect(page.get_by_role("button", name="Fit the bundled model now")).to_be_visible(
            timeout=60_000
        )
        expect(page.get_by_role("progressbar")).to_have_count(0)
        page.close()
        assert watch.problems == []
        assert "Traceback" not in alone.log.read_text(encoding="utf-8")
