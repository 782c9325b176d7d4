"""The page of prompts."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from streamlit.util import calc_hash

from dashboard.frame import asking
from dashboard.prompts import Prompt, store
from dashboard.state.store import stored_prompts
from tests.dashboard.conftest import DECODER, ENCODER, GPT2, Open
from tests.dashboard.pages import (
    FAMILIES,
    GROUPING,
    NEURON,
    SCRIPT,
    ask,
    click,
    decoded,
    errors,
    link,
    maps_of,
    tokens_of,
)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prompt_is_shown_token_by_token(
    family: str, open_page: Open, guest: Callable[[str], Any]
) -> None:
    text = f"kalo {SCRIPT}\nmi"
    at = ask(open_page("prompt", projection=family), text)
    assert errors(at) == []
    tokens = tokens_of(at)
    ids = guest(family).loaded.tokenizer(text)["input_ids"]
    made = [token["made"] for token in tokens]
    assert not any(made[: len(ids)])
    # An encoder shows the prompt's own tokens.
    assert made[len(ids) :] == ([] if family == ENCODER else [True] * (len(tokens) - len(ids)))
    assert (len(tokens) > len(ids)) == (family != ENCODER)
    shown = "".join(token["text"] for token in tokens[1 : len(ids)])
    assert shown.replace("⏎", "") == text
    (found,) = maps_of(at)
    for panel in found["panels"]:
        assert panel["frames"] == len(tokens)
        decoded(panel["values"], np.int8, len(tokens), 40 if panel["name"] == "L1" else 24)
    # The link brings it back, in another session, with the text in its field.
    again = open_page("prompt", **link(at))
    assert errors(again) == []
    assert tokens_of(again) == tokens
    assert again.text_area(key="prompt text").value == text
    assert again.number_input(key="prompt tokens").value == 4


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("kalo " * 100, " 64"),
        ("x" * 200_001, "200,000"),
    ],
)
@pytest.mark.parametrize("family", [DECODER, GPT2])
def test_a_prompt_that_can_not_be_run_is_said(
    family: str, typed: str, says: str, open_page: Open
) -> None:
    at = ask(open_page("prompt", projection=family), "kalo mi")
    before, selected = tokens_of(at), link(at)
    at = ask(at, typed)
    (error,) = errors(at)
    assert says in error
    # What ran before is still there, and what can't be run isn't in the link.
    assert tokens_of(at) == before
    assert link(at) == selected
    assert at.text_area(key="prompt text").value == typed
    at = ask(at, "kalo")
    assert errors(at) == []
    assert len(tokens_of(at)) < len(before)


@pytest.mark.parametrize("typed", ["", " \n ", "\x00\x1b"])
def test_an_emptied_prompt_clears_the_page(typed: str, open_page: Open) -> None:
    at = ask(open_page("prompt"), "kalo mi", other="raso")
    assert {"prompt", "other"} <= set(link(at))
    at = ask(at, typed)
    assert errors(at) == []
    assert maps_of(at) == []
    (info,) = at.info
    assert "Run" in info.value
    assert not {"prompt", "other", "token"} & set(link(at))


def test_a_prompt_opens_on_its_last_token(open_page: Open) -> None:
    at = ask(open_page("prompt"), "kalo mi ten", n_new=3)
    (found,) = maps_of(at)
    n_prompt = sum(not token["made"] for token in found["tokens"])
    assert found["token"] == n_prompt - 1
    assert any(each.value == f"Strongest at token {n_prompt}" for each in at.subheader)
    again = open_page("prompt", **link(at) | {"token": 1})
    assert maps_of(again)[0]["token"] == 1
    # One that the prompt lacks is said, once.
    again = open_page("prompt", **link(at) | {"token": len(found["tokens"])})
    assert errors(again) == []
    (line,) = again.warning
    assert f"token {len(found['tokens']) + 1}\\: token {n_prompt} " in line.value
    assert maps_of(again)[0]["token"] == n_prompt - 1
    assert "token" not in link(again)
    assert not again.run().warning


def to(at: Any, page: str) -> Any:
    """Another page, as a click in the menu opens it."""
    at._page_hash = calc_hash(page)
    return at.run()


def test_the_pages_of_the_stream_add_nothing_until_it_is_asked_for(open_page: Open) -> None:
    at = open_page("lens")
    assert at.number_input(key="prompt tokens").value == 0
    to(at, "prompt")
    assert at.number_input(key="prompt tokens").value == 24
    # What was run is chosen, on each page.
    at.text_area(key="prompt text").set_value("kalo mi")
    at.number_input(key="prompt tokens").set_value(3)
    at.button(key="run prompt").click().run()
    to(at, "lens")
    assert at.number_input(key="prompt tokens").value == 3


def test_a_number_that_was_left_as_it_was_is_run_and_stays(open_page: Open) -> None:
    at = open_page("lens")
    at.text_area(key="prompt text").set_value("kalo mi")
    at.button(key="run prompt").click().run()
    to(at, "prompt")
    assert at.number_input(key="prompt tokens").value == 0


def test_fields_keep_what_was_typed_while_another_page_is_looked_at(open_page: Open) -> None:
    at = open_page("prompt")
    at.toggle(key="compare").set_value(True).run()
    at.text_area(key="prompt text").set_value("kalo mi")
    at.text_area(key="other text").set_value("raso")
    at.number_input(key="prompt tokens").set_value(3)
    at.checkbox(key="prompt chat").set_value(True)
    # Nothing was run.
    assert not to(at.run(), "poles").text_area
    to(at, "prompt")
    assert at.text_area(key="prompt text").value == "kalo mi"
    assert at.text_area(key="other text").value == "raso"
    assert at.number_input(key="prompt tokens").value == 3
    assert at.checkbox(key="prompt chat").value
    assert at.toggle(key="compare").value


def test_tokens_are_coloured_by_a_neuron_or_a_pole(open_page: Open) -> None:
    at = ask(open_page("prompt", neuron=NEURON, grouping=GROUPING), "kalo mi ten", n_new=2)

    def shown() -> tuple[list[str], str]:
        assert errors(at) == []
        found = tokens_of(at)
        (scale,) = [str(each.proto) for each in at.get("html") if "linear" in str(each.proto)]  # type: ignore[union-attr]
        return [token["color"] for token in found], scale

    by_neuron, scale = shown()
    assert f"L1 N{NEURON}" in scale
    assert all(re.fullmatch("#[0-9a-f]{8}", color) for color in by_neuron)
    assert all(f"L1 N{NEURON}: " in token["title"] for token in tokens_of(at))
    at.segmented_control(key="color text by").set_value("Pole").run()
    by_pole, scale = shown()
    assert "Pole 0, mean of" in scale
    assert by_pole != by_neuron
    # The choice stays while another page is looked at.
    to(to(at, "poles"), "prompt")
    assert shown()[0] == by_pole
    at.segmented_control(key="color text by").set_value("Nothing").run()
    assert {token["color"] for token in tokens_of(at)} == {""}


def test_a_prompt_s_tokens_are_coloured_without_a_choice_of_ones_own(open_page: Open) -> None:
    at = ask(open_page("prompt"), "kalo mi ten", n_new=0)
    titles = [token["title"].splitlines()[1] for token in tokens_of(at)]
    assert all("last token" in title for title in titles)


@pytest.mark.parametrize("family", FAMILIES)
def test_next_tokens_are_told_at_each_token(family: str, open_page: Open) -> None:
    at = ask(open_page("prompt", projection=family), "kalo mi ten", n_new=2)
    assert errors(at) == []
    titles = [token["title"].splitlines()[-1] for token in tokens_of(at)]
    is_told = family != ENCODER
    assert all(title.startswith("next: ") == is_told for title in titles)
    heads = [each.value for each in at.subheader]
    assert any(head.startswith("Next token") for head in heads) == is_told


def test_prompts_that_differ_by_an_insertion_are_aligned(open_page: Open) -> None:
    at = ask(open_page("prompt"), "kalo mi", n_new=0, other="kalo raso mi")
    assert errors(at) == []
    (found,) = maps_of(at)
    rows = [[token["text"] for token in found[name]] for name in ("tokens", "tokens_beside")]
    assert len(rows[0]) == len(rows[1])
    pairs = list(zip(*rows, strict=True))
    assert any(a == "∅" for a, _ in pairs)
    assert pairs[-1][0] == pairs[-1][1]
    # It opens on the first difference; where one has no token there is no difference.
    at_gap = next(k for k, (a, b) in enumerate(pairs) if a != b)
    assert found["token"] == at_gap
    difference = decoded(found["panels"][2]["values"], np.int8, len(pairs), 40)
    for k, (a, b) in enumerate(pairs):
        assert difference[k].any() == ("∅" not in (a, b) and k > at_gap)


def test_control_signs_are_left_out(open_page: Open) -> None:
    at = ask(open_page("prompt"), "ka\x00lo\x1b[31m mi", n_new=0)
    assert errors(at) == []
    assert "".join(token["text"] for token in tokens_of(at)[1:]) == "kalo[31m mi"


@pytest.mark.parametrize("prompt", ["0" * 16, "../../../etc/passwd", SCRIPT, "x" * 150])
@pytest.mark.parametrize("place", ["prompt", "other"])
def test_a_prompt_that_is_not_here_is_said_once(place: str, prompt: str, open_page: Open) -> None:
    params = {"prompt": store(Prompt("kalo", 2), stored_prompts())} | {place: prompt}
    at = open_page("prompt", **params)
    (error,) = errors(at)
    assert prompt[:20] in error
    at = ask(at, "kalo mi") if place == "prompt" else at
    assert errors(at) == ([] if place == "prompt" else [error])


def test_two_prompts_stand_side_by_side_on_one_scale(open_page: Open) -> None:
    at = ask(open_page("prompt", neuron=NEURON), "kalo mi", n_new=0, other="raso ten kalo")
    assert errors(at) == []
    (found,) = maps_of(at)
    a, b, difference = found["panels"]
    assert a["scale"] == b["scale"]
    assert a["positions_id"] == b["positions_id"] == difference["positions_id"]
    # Where one has no token, nothing is compared.
    both = [
        "∅" not in (x["text"], y["text"])
        for x, y in zip(found["tokens"], found["tokens_beside"], strict=True)
    ]
    shown = [
        decoded(p["values"], np.int8, len(both), 40)[both].astype(int) for p in (a, b, difference)
    ]
    # What is beyond a scale has its end's colour.
    is_told = (np.abs(shown) < 127).all(axis=0)
    assert is_told.mean() > 0.9
    first, second, third = (
        each[is_told] / 127 * panel["scale"]
        for each, panel in zip(shown, (a, b, difference), strict=True)
    )
    assert np.abs(third).max() > 0
    step = max(a["scale"], difference["scale"]) / 127
    np.testing.assert_allclose(third, first - second, atol=2 * step)
    assert {"prompt", "other"} <= set(at.query_params)
    at.toggle(key="compare").set_value(False).run()
    assert errors(at) == []
    assert "other" not in at.query_params


def test_a_chat_without_a_template_is_sent_as_text(open_page: Open) -> None:
    at = open_page("prompt")
    at.checkbox(key="prompt chat").set_value(True)
    at = ask(at, "kalo mi", n_new=0)
    assert errors(at) == []
    assert len(at.warning) == 1
    assert "".join(token["text"] for token in tokens_of(at)[1:]) == "kalo mi"


def test_a_model_that_runs_out_of_memory_is_said(
    open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    at = open_page("prompt")
    with monkeypatch.context() as patched:
        patched.setattr(asking, "run_prompt", fail)
        (error,) = errors(ask(at, "kalo mi"))
    assert "Out of memory" in error
    # What failed is not kept.
    assert errors(ask(at, "kalo mi")) == []
    assert tokens_of(at)


def test_a_prompt_that_was_stopped_is_not_run_again_by_itself(
    open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = []
    whole = asking.run_prompt
    monkeypatch.setattr(asking, "run_prompt", lambda *a, **k: ran.append(1) or whole(*a, **k))
    prompt = store(Prompt("kalo mi", 2), stored_prompts())
    at = open_page("heatmap", prompt=prompt)
    # As the button beside the progress does.
    at.session_state["stopped prompt"] = prompt
    at._page_hash = calc_hash("prompt")
    at.run()
    assert ran == []
    (error,) = errors(at)
    assert "press Run" in error
    click(at, "Run").run()
    assert errors(at) == []
    assert ran == [1]
