"""The page of prompts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from streamlit.util import calc_hash

from dashboard.prompts import Prompt, store
from dashboard.state.store import stored_prompts
from dashboard.views import prompt as prompt_view
from tests.dashboard.conftest import DECODER, ENCODER, GPT2, Open
from tests.dashboard.pages import (
    FAMILIES,
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
        ("", "The prompt is empty"),
        (" \n ", "The prompt is empty"),
        ("\x00\x1b", "The prompt is empty"),
        ("kalo " * 100, "and the model takes 64: shorten it"),
        ("x" * 200_001, "characters: give 200,000 at most"),
    ],
)
@pytest.mark.parametrize("family", [DECODER, GPT2])
def test_a_prompt_that_can_not_be_run_is_said(
    family: str, typed: str, says: str, open_page: Open
) -> None:
    at = ask(open_page("prompt", projection=family), typed)
    (error,) = errors(at)
    assert says in error
    # And the app goes on.
    at = ask(at, "kalo mi")
    assert errors(at) == []
    assert tokens_of(at)


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
    n = min(a["frames"], b["frames"])
    shown = [
        decoded(p["values"], np.int8, p["frames"], 40)[:n].astype(int) for p in (a, b, difference)
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
        patched.setattr(prompt_view, "run_prompt", fail)
        (error,) = errors(ask(at, "kalo mi"))
    assert "Out of memory" in error
    # What failed is not kept.
    assert errors(ask(at, "kalo mi")) == []
    assert tokens_of(at)


def test_a_prompt_that_was_stopped_is_not_run_again_by_itself(
    open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = []
    whole = prompt_view.run_prompt
    monkeypatch.setattr(prompt_view, "run_prompt", lambda *a, **k: ran.append(1) or whole(*a, **k))
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
