"""Layer-time in the browser: it plays, keys and clicks select on every page, runs go on behind."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page, expect

from tests.dashboard.browser.app import PATIENCE_S, App, params, rest, run_prompt, until, visit
from tests.dashboard.browser.conftest import EVIL_TOKEN

A, B = f"kalo mi {EVIL_TOKEN} tenra so", f"kalo vel {EVIL_TOKEN} tenra so"


def _told(page: Page) -> dict[str, str]:
    """What the viewer says of the picture that is on the screen."""
    found: dict[str, str] = page.locator(".layer-time").evaluate("e => ({ ...e.dataset })")
    return found


def _wait(page: Page) -> None:
    """Until a picture is drawn."""
    expect(page.locator(".layer-time canvas").first).to_be_visible(timeout=2 * PATIENCE_S * 1000)
    until(lambda: int(_told(page).get("painted", 0)) > 0)


def test_layers_are_played_and_chosen(page: Page, app: App, tmp_path: Path) -> None:
    page.goto(app.link("layer-time", projection="decoder", layer=0, site="mlp_post"))
    run_prompt(page, A, other=B)
    _wait(page)
    # It plays from the start, and keys need no click.
    seen: set[str] = set()

    def is_seen() -> bool:
        seen.add(_told(page)["frame"])
        return len(seen) == 3

    until(is_seen)
    page.keyboard.press("Space")
    until(lambda: _told(page)["playing"] == "false")
    page.keyboard.press("End")
    until(lambda: params(page).get("layer") == "1")
    page.keyboard.press("[")
    until(lambda: params(page).get("layer") == "0")
    rest(page)
    # A token of A, then one of B.
    prompts = page.locator(".layer-time .prompt")
    prompts.first.get_by_role("button").last.click()
    until(lambda: "token" in params(page))
    token = params(page)["token"]
    prompts.last.get_by_role("button").nth(2).click()
    until(lambda: params(page).get("other_token") == "2")
    assert params(page)["token"] == token
    prompts.first.get_by_role("button").last.click()
    until(lambda: "other_token" not in params(page))
    rest(page)
    # Other pages show them, and what they choose is shown here.
    visit(page, "Lens")
    assert params(page)["token"] == token
    page.get_by_role("slider", name="Layer").press("ArrowRight")
    until(lambda: params(page).get("layer") == "1")
    visit(page, "Layer-time")
    _wait(page)
    assert (_told(page)["frame"], _told(page)["playing"]) == ("2", "false")
    assert _told(page)["held"] == token
    # What takes long goes on behind the page, and is there without another click.
    page.get_by_text("Stress", exact=True).click()
    expect(page.get_by_text("placed by PCA in 3 dimensions. Press Start")).to_be_visible()
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    told = page.get_by_text("stress layout on cosine distances")
    expect(told.first).to_be_visible(timeout=2 * PATIENCE_S * 1000)
    expect(page.get_by_role("button", name="Stop")).to_have_count(0)
    with page.expect_download() as waiting:
        page.get_by_role("button", name="HTML").click()
    path = tmp_path / waiting.value.suggested_filename
    waiting.value.save_as(path)
    assert EVIL_TOKEN not in path.read_text(encoding="utf-8")
    page.get_by_text("All layers of one token as an image").click()
    picture = page.get_by_test_id("stImage").locator("img")
    until(lambda: int(picture.evaluate("e => e.naturalWidth")) > 100)
    expect(page.locator("[data-testid=stAlertContentError]")).to_have_count(0)
