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
    expect(heading(other)).to_have_text("What a prompt lights up")
    wait_for_map(other)
    assert drawn(other)["shown"] == state["shown"]
    assert drawn(other)["token"] == "3"
    expect(other.get_by_role("textbox", name="Prompt A")).to_have_value("kalo <b>mi</b> & tenra")
    expect(other.get_by_role("textbox", name="Prompt B")).to_have_value("so vel")
    expect(other.get_by_role("slider", name="Layer")).to_have_attribute("aria-valuetext", "1")
    assert params(other) == params(page)


def test_every_page_can_be_linked(open_page: Callable[..., Page], app: App) -> None:
    chosen = {"projection": "decoder", "layer": 1, "site": "attn_out", "neuron": 7, "marked": "2-4"}
    titles = {
        "map": "Layer 1: attention output",
        "neuron": "L1 attn out N7",
        "prompt": "What a prompt lights up",
        "heatmap": "Correlations in layer 1: attention output",
        "poles": "Poles in layer 1: attention output",
        "pruning": "What pruning costs",
    }
    page = open_page()
    for path, title in titles.items():
        page.goto(app.link(path, **chosen))
        expect(heading(page)).to_have_text(title)
        rest(page)
        assert params(page) == {name: str(value) for name, value in chosen.items()}


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


def test_a_link_that_makes_no_sense_is_no_reason_to_fail(page: Page, app: App) -> None:
    page.goto(
        app.link(projection="../../etc", layer=99, site="moon", neuron="1e9", pole=-3, token="x")
    )
    wait_for_map(page)
    expect(page.get_by_role("alert")).to_contain_text("There is no projection")
    expect(heading(page)).to_have_text("Layer 0: MLP neurons")
    page.goto(app.link("prompt", prompt="0123456789abcdef"))
    expect(page.get_by_role("alert").first).to_contain_text("not on this machine")
