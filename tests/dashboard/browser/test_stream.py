"""From a prompt to the lens, to what adds to a logit, to a head, to the model without it."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from dashboard.residual.head_table import heads_text
from dashboard.state.store import heads_name, stored_heads
from projector.model.loading import load_model
from projector.residual.heads.scores import score_heads
from projector.residual.subject import Subject
from tests.dashboard.browser.app import (
    PATIENCE_S,
    App,
    cells,
    heading,
    params,
    rest,
    run_prompt,
    until,
    visit,
)

TEXT = "kalo mi tenra so vel du"


@pytest.fixture(scope="module", autouse=True)
def _scored(app: App) -> None:
    """Scores of the model's heads where the app keeps them: few random heads, so no kinds."""
    loaded = load_model(str(app.root / "models" / "decoder"), device="cpu", with_head=True)
    found = score_heads(Subject(loaded), n_random=4, length=8).as_dict()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRANSFORMER_PROJECTOR_CACHE", str(app.log.parent / "cache"))
        with stored_heads().writing(heads_name(loaded.weights_sha256)) as path:
            path.write_text(heads_text(found), encoding="utf-8")


def test_a_prompt_s_logit_leads_to_a_head_and_to_the_model_without_it(page: Page, app: App) -> None:
    page.goto(app.link("lens"))
    expect(page.get_by_text("Type a prompt and press Run.")).to_be_visible()
    run_prompt(page, TEXT, n_new=3)
    grid = page.get_by_role("grid", name="What each layer expects after each token")
    expect(grid).to_be_visible(timeout=2 * PATIENCE_S * 1000)
    rest(page)
    # The last token of the prompt is looked at, and nothing is chosen yet.
    n_tokens = grid.locator(".head div:not(.corner)").count()
    assert n_tokens > 8
    # Pointed at, a cell tells its top tokens.
    place = grid.locator('[data-row="1"][data-column="2"]')
    place.hover()
    tip = page.locator(".cell-grid .tip")
    expect(tip).to_contain_text("KL(final ‖ lens)")
    expect(tip.locator(".left")).to_have_count(9)
    place.click()
    until(lambda: params(page).get("token") == "2")
    rest(page)
    expect(grid.locator("button.selected")).to_have_count(1)
    # To a screen reader it is a table: rows of cells, one of which is selected.
    expect(grid.locator('[aria-selected="true"]')).to_have_count(1)
    n_rows = grid.locator(".names div").count()
    expect(grid.get_by_role("row")).to_have_count(n_rows + 1)
    expect(grid.get_by_role("columnheader")).to_have_count(n_tokens)
    expect(grid.get_by_role("row").nth(1).get_by_role("gridcell")).to_have_count(n_tokens)
    # The tab key leads to one cell.
    expect(grid.locator('[tabindex="0"]')).to_have_count(1)
    assert params(page)["reading"] == str(grid.locator(".names div").count() - 2)
    # By the keys too: the cell to the right, then back.
    grid.locator("button.selected").press("ArrowRight")
    page.keyboard.press("Enter")
    until(lambda: params(page).get("token") == "3")
    rest(page)
    expect(page.get_by_role("heading", name="After token 4")).to_be_visible()
    # What adds to the logit: negative to the left, positive to the right, and all of it in words.
    bars = page.locator(".part-bars").first
    values = bars.locator(".value").all_inner_texts()
    numbers = [float(text.replace("−", "-")) for text in values[:-1]]
    assert numbers == sorted(numbers, reverse=True)
    expect(page.get_by_text("Closure error")).to_be_visible()
    head = bars.locator("button.row").filter(has_text=re.compile(r"^L\d+ H\d+")).first
    name = head.locator(".name").inner_text()
    layer, number = (int(each) for each in re.findall(r"\d+", name))
    head.click()
    until(lambda: params(page).get("head") == str(number))
    assert params(page)["layer"] == str(layer)
    rest(page)
    expect(bars.locator("button.selected .name")).to_have_text(name)
    # On its page: marked in the table, with its pattern.
    page.get_by_role("button", name="Open it on Heads").click()
    expect(heading(page)).to_have_text("What attention heads do")
    heads = page.get_by_role("grid", name="All attention heads")
    expect(heads).to_be_visible(timeout=2 * PATIENCE_S * 1000)
    expect(heads.locator("button.selected")).to_have_attribute(
        "aria-label", re.compile(f"^layer {layer}, H{number}: {name}")
    )
    expect(page.get_by_role("heading", name=f"{name} on a prompt")).to_be_visible()
    tokens = page.locator(".token-text span")
    expect(tokens).to_have_count(n_tokens)
    expect(page.locator(".st-key-pattern .js-plotly-plot")).to_be_visible()
    assert TEXT in "".join(tokens.all_inner_texts())
    token = page.locator(".token-text span.selected")
    expect(token).to_have_attribute("data-number", "3")
    expect(token).to_have_attribute("aria-label", re.compile("token 4 attends to this: "))
    rest(page)
    tokens.nth(5).click()
    until(lambda: params(page).get("token") == "5")
    rest(page)
    # A row of the matrix is a token too.
    area = page.locator(".st-key-pattern .nsewdrag").bounding_box()
    assert area is not None
    row = 2
    page.mouse.click(area["x"] + 9, area["y"] + (row + 0.5) * area["height"] / n_tokens)
    until(lambda: params(page).get("token") == str(row))
    rest(page)
    # Without it, beside random ones.
    page.get_by_text(f"Ablate {name}").click()
    page.get_by_role("textbox", name="Text to score on").fill(str(app.root / "unseen.txt"))
    page.get_by_role("textbox", name="Text to score on").press("Enter")
    rest(page)
    page.get_by_role("button", name="Ablate", exact=True).click()
    table = page.get_by_test_id("stDataFrame").last
    expect(table).to_be_visible()
    rest(page)
    shown = cells(table)
    assert "the whole model" in shown
    assert f"without {name}" in shown
    assert sum("random head" in each for each in shown) == 3
    # The link brings all of it back, on both pages.
    link = params(page)
    page.goto(page.url)
    expect(page.locator(".token-text span.selected")).to_have_attribute("data-number", str(row))
    expect(
        page.get_by_role("grid", name="All attention heads").locator("button.selected")
    ).to_have_attribute("aria-label", re.compile(f"{name}"))
    visit(page, "Lens")
    again = page.get_by_role("grid", name="What each layer expects after each token")
    expect(again.locator("button.selected")).to_have_attribute("data-column", str(row))
    expect(page.locator(".part-bars button.selected .name").first).to_have_text(name)
    assert params(page) == link


def test_an_encoder_says_why_it_has_no_lens(page: Page, app: App) -> None:
    bert = {"projection": "bert", "model": "models/bert", "layer": 1, "site": "mlp_post"}
    page.goto(app.link("lens", **bert))
    expect(page.get_by_text("This model is an encoder")).to_be_visible()
    visit(page, "Heads")
    expect(page.get_by_role("grid", name="All attention heads")).to_be_visible()
    page.get_by_role("gridcell").nth(1).click()
    until(lambda: "head" in params(page))
    rest(page)
    expect(page.get_by_text("both directions")).to_be_visible()
