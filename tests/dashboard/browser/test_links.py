"""The selection in the link: copied elsewhere, it restores the view."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.dashboard.browser.app import (
    App,
    drawn,
    heading,
    params,
    rest,
    run_prompt,
    until,
    visit,
    wait_for_map,
)


def test_a_copied_link_restores_the_view(open_page: Callable[..., Page], app: App) -> None:
    page = open_page()
    page.goto(app.link("prompt", layer=1))
    rest(page)
    run_prompt(page, "kalo <b>mi</b> & tenra", "so vel", n_new=3)
    wait_for_map(page)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    # From the first token that differs on, which is the second.
    until(lambda: params(page).get("token") == "3")
    rest(page)
    link, state = page.url, drawn(page)
    # No text of a prompt stands in a link.
    assert "kalo" not in link
    other = open_page()
    other.goto(link)
    expect(heading(other)).to_have_text("What a prompt activates")
    wait_for_map(other)
    assert drawn(other)["shown"] == state["shown"]
    assert drawn(other)["token"] == "3"
    expect(other.get_by_role("textbox", name="Prompt A")).to_have_value("kalo <b>mi</b> & tenra")
    expect(other.get_by_role("textbox", name="Prompt B")).to_have_value("so vel")
    expect(other.get_by_role("slider", name="Layer")).to_have_attribute("aria-valuetext", "1")
    assert params(other) == params(page)


def test_back_and_forth_in_the_browser(page: Page, app: App) -> None:
    page.goto(app.link(layer=0))
    wait_for_map(page)
    rest(page)
    visit(page, "Poles")
    expect(heading(page)).to_have_text("Poles in layer 0: MLP neurons")
    page.get_by_role("slider", name="Layer").press("ArrowRight")
    until(lambda: params(page)["layer"] == "1")
    rest(page)
    # One step back is one change of the selection, or one page.
    page.go_back()
    until(lambda: params(page)["layer"] == "0")
    rest(page)
    expect(page.get_by_role("slider", name="Layer")).to_have_attribute("aria-valuetext", "0")
    expect(heading(page)).to_have_text("Poles in layer 0: MLP neurons")
    page.go_back()
    expect(heading(page)).to_have_text("Layer 0: MLP neurons")
    wait_for_map(page)
    rest(page)
    page.go_forward()
    expect(heading(page)).to_have_text("Poles in layer 0: MLP neurons")
    rest(page)
    page.go_forward()
    expect(heading(page)).to_have_text("Poles in layer 1: MLP neurons")
