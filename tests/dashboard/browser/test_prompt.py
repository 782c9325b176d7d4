"""A prompt's tokens on the map: keys, playback, and a second prompt beside it."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from tests.dashboard.browser.app import (
    App,
    Watch,
    camera,
    drawn,
    heading,
    params,
    rest,
    run_prompt,
    turn,
    until,
    visit,
    wait_for_map,
)
from tests.dashboard.conftest import SPACED

TEXT = "kalo mi tenra so vel du"


def _token(page: Page) -> int:
    return int(drawn(page)["token"])


def _is_playing(page: Page) -> bool:
    button = page.get_by_role("button", name="Play or pause (Space)")
    return button.get_attribute("aria-pressed") == "true"


def _open(page: Page, app: App, n_new: int = 6) -> int:
    """Run the prompt; how many tokens it has."""
    page.goto(app.link("prompt"))
    expect(page.get_by_text("Type a prompt and press Run.")).to_be_visible()
    run_prompt(page, TEXT, n_new=n_new)
    wait_for_map(page)
    rest(page)
    return page.locator(".neuron-map .token").count()


def test_a_prompt_s_tokens_are_stepped_through_with_keys(page: Page, app: App) -> None:
    n_tokens = _open(page, app)
    assert n_tokens > 8
    text = "".join(page.locator(".neuron-map .token").all_inner_texts())
    assert TEXT in text
    assert page.locator(".neuron-map .token.made").count() == 6
    # It opens on the prompt's last token.
    until(lambda: _token(page) == n_tokens - 7)
    page.keyboard.press("Home")
    until(lambda: params(page).get("token") == "0")
    # Run was pressed last: the keys are the tokens' from here on.
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    until(lambda: _token(page) == 2)
    expect(page.locator(".neuron-map .token.now")).to_have_count(1)
    expect(page.locator(".neuron-map .token").nth(2)).to_have_class(re.compile("now"))
    until(lambda: params(page).get("token") == "2")
    page.keyboard.press("ArrowLeft")
    until(lambda: params(page).get("token") == "1")
    page.keyboard.press("End")
    until(lambda: params(page).get("token") == str(n_tokens - 1))
    page.keyboard.press("Home")
    until(lambda: params(page).get("token") == "0")
    expect(page.get_by_text("Strongest at token 1", exact=True)).to_be_visible()
    # And where nothing has the focus.
    page.evaluate("document.activeElement.blur()")
    # Every token has its own picture.
    pictures = set()
    for token in range(4):
        until(lambda token=token: _token(page) == token)
        pictures.add(page.locator(".neuron-map .stage").screenshot())
        page.keyboard.press("ArrowRight")
    assert len(pictures) == 4


def test_a_click_on_a_token_goes_there_and_one_on_a_neuron_to_its_card(
    page: Page, app: App
) -> None:
    _open(page, app)
    tokens = page.locator(".neuron-map .token")
    tokens.nth(5).click()
    until(lambda: _token(page) == 5)
    until(lambda: params(page).get("token") == "5")
    expect(page.get_by_text("Strongest at token 6", exact=True)).to_be_visible()
    # After a key, the token that was clicked isn't marked any more: one alone is.
    page.keyboard.press("ArrowRight")
    until(lambda: _token(page) == 6)
    outlines = "es => es.map(e => [e.classList.contains('now'), getComputedStyle(e).outlineStyle])"
    marked = [
        k
        for k, (now, outline) in enumerate(tokens.evaluate_all(outlines))
        if now or outline != "none"
    ]
    assert marked == [6]
    page.keyboard.press("ArrowLeft")
    until(lambda: _token(page) == 5)
    # The slider too, with the keys that sliders have.
    page.get_by_role("slider", name="Token").press("ArrowLeft")
    until(lambda: _token(page) == 4)
    until(lambda: params(page).get("token") == "4")
    rest(page)
    # What is strongest there is a neuron that can be chosen.
    mover = page.locator("[class*=st-key-activation-0] button")
    name = mover.inner_text().split()[0]
    mover.click()
    until(lambda: f"N{params(page).get('neuron')}" == name)
    page.get_by_role("button", name="Open its card").click()
    expect(heading(page)).to_have_text(f"L0 {name}")


def test_playback_asks_nothing_of_the_server(page: Page, app: App, watch: Watch) -> None:
    n_tokens = _open(page, app, n_new=20)
    page.get_by_label("Tokens per second").select_option("20")
    rest(page)
    page.locator(".neuron-map .overlay").press("Home")
    until(lambda: params(page).get("token") == "0")
    rest(page)
    n_before, link = watch.n_sent, page.url
    page.keyboard.press(" ")
    until(lambda: _token(page) >= 5)
    assert _is_playing(page)
    assert watch.n_sent == n_before
    assert page.url == link
    page.keyboard.press(" ")
    until(lambda: not _is_playing(page))
    # Once it is at rest, the link says where.
    until(lambda: params(page).get("token") == str(_token(page)))
    at = _token(page)
    assert at >= 5
    rest(page)
    assert _token(page) == at
    page.keyboard.press(" ")
    until(lambda: not _is_playing(page))
    assert _token(page) == n_tokens - 1
    until(lambda: params(page).get("token") == str(n_tokens - 1))
    # From the end it begins anew.
    page.keyboard.press(" ")
    until(lambda: _is_playing(page) and _token(page) < n_tokens - 1)


def test_layer_and_prompt_change_under_a_camera_that_stays(page: Page, app: App) -> None:
    _open(page, app)
    turn(page, 80, -30)
    turned = camera(page)
    before = drawn(page)["shown"]
    page.get_by_role("slider", name="Layer").press("ArrowRight")
    until(lambda: drawn(page)["shown"] != before)
    assert camera(page) == turned
    n_tokens = page.locator(".neuron-map .token").count()
    run_prompt(page, "so mi", n_new=0)
    until(lambda: page.locator(".neuron-map .token").count() < n_tokens)
    assert camera(page) == turned
    until(lambda: _token(page) == page.locator(".neuron-map .token").count() - 1)


def test_two_prompts_stand_side_by_side_with_their_difference(page: Page, app: App) -> None:
    page.goto(app.link("prompt"))
    rest(page)
    run_prompt(page, TEXT, "esh ti gam", n_new=2)
    # The first token is the same of both, and of no use to begin with.
    expect(page.get_by_text("Largest differences at token 2", exact=True)).to_be_visible()
    state = wait_for_map(page)
    strips = page.locator(".neuron-map .strip")
    expect(strips).to_have_count(2)
    for strip, name, text in zip(strips.all(), "AB", (TEXT, "esh ti gam"), strict=True):
        expect(strip).to_contain_text(name)
        assert text in "".join(strip.locator(".token").all_inner_texts()).replace("∅", "")
        expect(strip.locator(".now")).to_have_count(1)
    # A, B and A − B: the same points, other values.
    shown = [each.split("/") for each in state["shown"].split()]
    assert len(shown) == 3
    assert len({positions for positions, _ in shown}) == 1
    assert len({values for _, values in shown}) == 3
    legends = page.locator(".neuron-map .legend").all_inner_texts()
    scales = [" ".join(text.split()) for text in legends]
    assert scales[0] == scales[1]
    assert scales[0].startswith("Activation")
    assert scales[2].startswith("Difference")
    until(lambda: {"prompt", "other"} <= set(params(page)))
    page.keyboard.press("ArrowRight")
    expect(page.get_by_text("Largest differences at token 3", exact=True)).to_be_visible()
    page.keyboard.press("Home")
    expect(page.get_by_text("up to this token the prompts are the same")).to_be_visible()
    # Each row holds what both have there; a sign stands for a token that one lacks.
    page.keyboard.press("End")
    texts = [strip.locator(".token").all_inner_texts() for strip in strips.all()]
    assert len(texts[0]) == len(texts[1])
    assert any("∅" in row for row in zip(*texts, strict=True))
    until(lambda: _token(page) == len(texts[0]) - 1)
    for strip in strips.all():
        expect(strip.locator(".token").last).to_have_class(re.compile("now"))
    # Alone again.
    page.get_by_text("Compare with a second prompt").click()
    until(lambda: len(drawn(page)["shown"].split()) == 2)
    until(lambda: "other" not in params(page))


def test_what_was_typed_stays_and_what_can_t_be_run_changes_nothing(page: Page, app: App) -> None:
    n_tokens = _open(page, app)
    field = page.get_by_role("textbox", name="Prompt", exact=True)
    tokens, run = page.locator(".neuron-map .token"), page.get_by_role("button", name="Run")
    # The text is coloured: of a token's colour much or little is seen.
    expect(page.locator(".neuron-map .token.colored")).to_have_count(n_tokens)
    fills = tokens.evaluate_all("es => es.map(e => getComputedStyle(e).backgroundColor)")
    assert len(set(fills)) > 3
    # Typed, not run, and another page looked at while the field still has the focus.
    n_new = page.get_by_role("spinbutton", name="Tokens to add")
    for typed in ("raso ten", "raso ten so"):
        field.click()
        field.press("Control+a")
        field.press_sequentially(typed)
        visit(page, "Heatmap")
        rest(page)
        visit(page, "Prompt")
        rest(page)
        expect(field).to_have_value(typed)
        expect(n_new).to_have_value("6")
        expect(page.get_by_role("radio", name="Neuron")).to_be_checked()
        expect(tokens).to_have_count(n_tokens)
        assert "colored" in (tokens.first.get_attribute("class") or "")
    # What stands there is what runs.
    run.click()
    until(lambda: "raso ten so" in "".join(tokens.all_text_contents()))
    rest(page)
    n_tokens = tokens.count()
    selected = params(page)["prompt"]
    field.fill("kalo mi " * 100)
    run.click()
    expect(page.get_by_role("alert")).to_contain_text("shorten it by")
    expect(tokens).to_have_count(n_tokens)
    assert params(page)["prompt"] == selected
    field.fill("")
    run.click()
    expect(page.get_by_text("Type a prompt and press Run.")).to_be_visible()
    expect(tokens).to_have_count(0)
    until(lambda: "prompt" not in params(page))


def test_a_tokenizer_that_marks_words_keeps_the_spaces(page: Page, app: App) -> None:
    llama = {"projection": "llama", "model": "models/llama", "layer": 1, "site": "mlp_post"}
    page.goto(app.link("prompt", **llama))
    rest(page)
    run_prompt(page, "the method of the self", n_new=0)
    wait_for_map(page)
    shown = "".join(page.locator(".neuron-map .token").all_text_contents())
    assert shown.removeprefix("<s>").strip() == "the method of the self"
    page.goto(app.link("neuron", **llama, neuron=3))
    rest(page)
    lines = page.get_by_test_id("stHtml").filter(has_text="method").first.inner_text().split("\n")
    assert any(line.strip(" <s>") and line.strip() in SPACED * 3 for line in lines)
