"""Many at once: they share one model, and nothing of what they look at."""

from __future__ import annotations

import os
from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.dashboard.browser.app import (
    PATIENCE_S,
    App,
    drawn,
    heading,
    params,
    until,
    wait_for_map,
)

# Twenty take more than a minute.
N = 20 if os.environ.get("THOROUGH") == "1" else 3
_WORDS = ("kalo", "mi", "tenra", "so", "vel", "du", "pi", "nor", "esh", "ti")


def _prompt(k: int) -> str:
    return " ".join(_WORDS[(k + j) % len(_WORDS)] for j in range(2 + k // 4)) + f" {k}"


def test_contexts_never_mix(open_page: Callable[..., Page], app: App) -> None:
    pages = [open_page(viewport={"width": 900, "height": 700}) for _ in range(N)]
    # Every step is begun in all of them before it is awaited in any.
    for k, page in enumerate(pages):
        page.goto(app.link("prompt", layer=k % 2, neuron=k), wait_until="commit")
    for k, page in enumerate(pages):
        expect(heading(page)).to_have_text("What a prompt activates", timeout=PATIENCE_S * 1000)
        page.get_by_role("textbox", name="Prompt", exact=True).fill(_prompt(k))
        page.get_by_role("spinbutton", name="Tokens to add").fill(str(k % 3))
    for page in pages:
        page.get_by_role("button", name="Run", exact=True).click(no_wait_after=True)
    shown = []
    for k, page in enumerate(pages):
        wait_for_map(page)
        text = "".join(page.locator(".neuron-map .token").all_inner_texts())
        assert _prompt(k) in text
        assert page.locator(".neuron-map .token.made").count() <= k % 3
        shown.append(drawn(page)["shown"])
    # As many prompts as pictures.
    assert len(set(shown)) == N
    for k, page in enumerate(pages):
        page.locator(".neuron-map .overlay").press("Home")
        for _ in range(k % 4):
            page.locator(".neuron-map .overlay").press("ArrowRight")
    for k, page in enumerate(pages):
        until(lambda page=page, k=k: drawn(page)["token"] == str(k % 4))
        until(lambda page=page, k=k: params(page).get("token") == str(k % 4))
        found = params(page)
        assert (found["layer"], found["neuron"]) == (str(k % 2), str(k))
        assert drawn(page)["shown"] == shown[k]
    assert len({params(page)["prompt"] for page in pages}) == N
    for page in pages:
        expect(page.get_by_role("alert")).to_have_count(0)
