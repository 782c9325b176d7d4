"""Text of prompts, tokens and folders is text: nothing of it runs, and all of it can be read."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from tests.dashboard.browser.app import (
    App,
    params,
    rest,
    run_prompt,
    visit,
    wait_for_map,
)
from tests.dashboard.browser.conftest import EVIL_NAME, EVIL_TOKEN

# Within the 64 tokens that the model takes.
EVIL_PROMPT = "<script>alert(1)</script><img src=x> **b** $x$ :a:"


def test_prompts_and_tokens_are_shown_as_they_are(page: Page, app: App) -> None:
    page.goto(app.link("prompt"))
    rest(page)
    run_prompt(page, EVIL_PROMPT, f"kalo {EVIL_TOKEN} mi", n_new=0)
    wait_for_map(page)
    rest(page)
    assert EVIL_PROMPT in "".join(page.locator(".neuron-map .token").all_inner_texts())
    # One token of the model's, not signs one by one.
    expect(page.locator(".neuron-map .token", has_text=EVIL_TOKEN)).to_have_count(1)
    assert page.locator(".neuron-map script, .neuron-map img").count() == 0
    page.reload()
    wait_for_map(page)
    expect(page.get_by_role("textbox", name="Prompt A")).to_have_value(EVIL_PROMPT)
    # And in the corpus: on the card it is among what drives a neuron.
    page.goto(app.link("neuron", neuron=0))
    rest(page)
    shown = page.get_by_test_id("stHtml").filter(has_text="script")
    for kind in ("Highest", "Lowest", "Quantiles", "At random"):
        page.get_by_text(kind, exact=True).click()
        rest(page)
        if shown.count():
            break
    expect(shown.first).to_contain_text(EVIL_TOKEN)
    assert page.locator("[data-testid=stHtml] script").count() == 0


def test_a_folder_s_name_is_a_name(page: Page, app: App) -> None:
    page.goto(app.link(projection=EVIL_NAME, neuron=1))
    wait_for_map(page)
    for path in ("neuron", "heatmap"):
        visit(page, path.capitalize())
        expect(page.get_by_role("combobox", name="Projection")).to_have_value(EVIL_NAME)
        assert params(page)["projection"] == EVIL_NAME


def test_names_in_a_link_are_no_markup(page: Page, app: App) -> None:
    wrong = "<img src=x onerror=alert(1)>[a](javascript:alert(2))"
    page.goto(app.link(projection=wrong))
    wait_for_map(page)
    expect(page.get_by_role("alert")).to_contain_text(wrong)
    assert page.locator("[role=alert] img, [role=alert] a").count() == 0
