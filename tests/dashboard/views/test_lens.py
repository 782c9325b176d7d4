"""The Lens page: what layers read, what adds to a logit, and one line where neither is known."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from streamlit.testing.v1 import AppTest

from dashboard.drawing.text import number
from dashboard.frame.residual import lensing
from dashboard.guest import Guest
from dashboard.prompts import Prompt, read_prompt, store
from dashboard.state.session import plain
from dashboard.state.store import stored_prompts
from projector.corpus.pieces import readable
from projector.naming.words import compact
from projector.residual.attribution import attribute
from projector.residual.lens import run_lens
from tests.dashboard.conftest import DECODER, ENCODER, GPT2, Open
from tests.dashboard.pages import SCRIPT, ask, cell, errors, grid_of, link, parts_of

Guests = Callable[[str], Guest]
PROMPT = Prompt("kalo mi tenra so", 3)


@pytest.fixture
def prompt(start: Open) -> str:
    return store(PROMPT, stored_prompts())


@pytest.mark.parametrize("family", [DECODER, GPT2])
def test_each_layer_is_read_and_the_end_is_what_the_model_says(
    family: str, open_page: Open, prompt: str, guest: Guests
) -> None:
    at = open_page("lens", projection=family, prompt=prompt, token=2, reading=3)
    assert errors(at) == []
    found = guest(family)
    tokens = read_prompt(found, PROMPT)
    grid = grid_of(at)
    n_layers = len(found.architecture.blocks)
    assert len(grid["rows"]) == 2 * n_layers + 1
    assert grid["rows"][0] == f"L{n_layers - 1} MLP"
    assert grid["rows"][-1] == "embedding"
    assert len(grid["columns"]) == len(tokens.pieces) == tokens.n_prompt + 3
    with torch.no_grad():
        logits = found.loaded.model(input_ids=torch.tensor([tokens.ids])).logits[0].float()
    for column in range(len(tokens.ids)):
        top = int(logits[column].argmax())
        assert cell(grid, 0, column)[0] == readable(found.subject.pieces([top]).text(top))
    # The row is counted from the model's end, the cell is the link's.
    assert grid["selected"] == [2 * n_layers - 3, 2]
    parts, neurons = parts_of(at, "bars")
    assert len(parts["bars"]) > 5
    assert all(bar["can_pick"] for bar in neurons["bars"][:-1])
    said = " ".join(each.value for each in at.caption)
    assert "closure error" in said.lower()
    assert "additivity error" in said
    assert f"All {len(tokens.ids)} tokens" in said


def test_an_encoder_gets_the_reason_in_one_line(open_page: Open, prompt: str) -> None:
    at = open_page("lens", projection=ENCODER, prompt=prompt)
    assert errors(at) == []
    (info,) = at.info
    assert "encoder" in info.value
    assert parts_of(at, "cells") == []
    # Without a prompt too, and the fields are there.
    at = open_page("lens", projection=ENCODER)
    assert any("encoder" in each.value for each in at.info)
    assert at.text_area(key="prompt text").value == ""


def test_a_prompt_typed_here_is_the_prompt_page_s_too(open_page: Open) -> None:
    at = open_page("lens")
    (info,) = at.info
    assert "Run" in info.value
    at = ask(at, "kalo mi", n_new=2)
    assert errors(at) == []
    chosen = link(at)["prompt"]
    other = open_page("prompt", prompt=chosen)
    assert other.text_area(key="prompt text").value == "kalo mi"
    # The toggle for a second prompt is the Prompt page's alone.
    assert not any(each.key == "compare" for each in at.toggle)


def test_a_link_says_whose_logit_it_is(open_page: Open, prompt: str, guest: Guests) -> None:
    found = guest(DECODER)
    target, against = 20, 21
    texts = [readable(found.subject.pieces([i]).text(i)) for i in (target, against)]
    at = open_page("lens", prompt=prompt, token=1, target=target, against=against)
    assert errors(at) == []
    shown = " ".join(each.value.replace("\\", "") for each in at.markdown)
    assert re.search(f"logit of ‘{re.escape(texts[0])}’.*‘{re.escape(texts[1])}’", shown)
    # By their texts too, whether or not they are likely there.
    assert at.selectbox(key="lens target").value == f"{texts[0]}  (#{target})"
    assert at.selectbox(key="lens against").value == f"{texts[1]}  (#{against})"
    # The usual ones again.
    at.selectbox(key="lens against").set_value("no other token").run()
    assert "against" not in link(at)
    at.selectbox(key="lens target").set_value("the model's top token").run()
    assert "target" not in link(at)


def test_a_token_that_is_none_is_said_and_changes_nothing(open_page: Open, prompt: str) -> None:
    at = open_page("lens", prompt=prompt)
    before, field = link(at), at.selectbox(key="lens target")
    # A browser lets one type what is not in the list.
    field.options.append(SCRIPT)
    field.set_value(SCRIPT).run()
    (problem,) = errors(at)
    assert "token" in problem.lower()
    assert "alert(1)" in problem
    assert link(at) == before
    assert problem.startswith("‘Token’:")


def test_what_of_a_link_is_not_there_is_said_and_let_go(open_page: Open, prompt: str) -> None:
    at = open_page("lens", prompt=prompt, target=10**8, against=10**7, reading=77)
    assert errors(at) == []
    (note,) = (each.value.replace("\\", "") for each in at.warning)
    for told in ("#100000000", "#10000000", "no row 77"):
        assert told in note
    assert {"target", "against", "reading"}.isdisjoint(link(at))
    # What is there is shown.
    assert grid_of(at)["selected"][0] is None
    assert len(parts_of(at, "bars")) == 2


@pytest.mark.parametrize("family", [DECODER, GPT2])
def test_a_cell_s_own_logit_is_attributed_to_what_is_written_by_then(
    family: str, open_page: Open, prompt: str, guest: Guests
) -> None:
    found = guest(family)
    ids = read_prompt(found, PROMPT).ids
    read = run_lens(found.subject, ids)
    shown = {}
    for reading in (0, 1, 2, 4):
        at = open_page("lens", projection=family, prompt=prompt, token=2, reading=reading)
        assert errors(at) == []
        text, token, _ = read.top(reading, 2)[0]
        place = read.readings[reading]
        own = attribute(
            found.subject, ids, token=token, position=2, until=(place.layer, place.stream)
        )
        said = " ".join(each.value for each in (*at.markdown, *at.caption))
        whose = "model's logit" if reading == 4 else "logit"
        assert f"What adds to {plain(f'the {whose} of ‘{compact(text)}’')}" in said
        assert plain(number(own.logit, "+.4f")) in said
        values = [bar["value"].replace("−", "-") for bar in parts_of(at, "bars")[0]["bars"]]
        assert sum(map(float, values)) == pytest.approx(own.logit, abs=0.01 * len(values))
        assert ("read from" in said.lower()) == (reading < 4)
        shown[reading] = {bar["name"] for each in parts_of(at, "bars") for bar in each["bars"]}
    assert not any(name.startswith("L") for name in shown[0])
    assert "L0 MLP" not in shown[1]
    assert "L0 MLP" in shown[2]
    assert not any(name.startswith("L1") for name in shown[2])


def test_a_table_travels_once_and_then_what_is_selected(open_page: Open, prompt: str) -> None:
    def sent(at: AppTest) -> bytes:
        (found,) = (
            each.proto.bytes
            for each in at.get("bidi_component")
            if b'"selected": [' in each.proto.bytes
        )
        return bytes(found)

    at = open_page("lens", prompt=prompt, token=2)
    assert b'"cells"' in sent(at)
    assert grid_of(at)["selected"] == [None, 2]
    at.query_params["token"] = "3"
    at.run()
    assert grid_of(at)["selected"] == [None, 3]
    assert b'"cells"' not in sent(at)
    # Other colours are another table.
    at.segmented_control(key="lens color").set_value("entropy").run()
    assert b'"cells"' in sent(at)


def test_what_adds_to_random_tokens_is_drawn_beside_each_bar(open_page: Open, prompt: str) -> None:
    at = open_page("lens", prompt=prompt, token=2)
    bars = [bar for each in parts_of(at, "bars") for bar in each["bars"]]
    controlled = [bar for bar in bars if bar["control"]]
    assert len(controlled) > 5
    assert all(-1 <= low < high <= 1 for low, high in (bar["control"] for bar in controlled))
    assert any("Grey bands" in each.value for each in at.caption)


def test_kl_has_the_best_constant_guess_beside_it(
    open_page: Open, prompt: str, guest: Guests
) -> None:
    at = open_page("lens", prompt=prompt)
    assert not any("comparison" in each.value for each in at.caption)
    at.segmented_control(key="lens color").set_value("kl").run()
    found = guest(DECODER)
    baseline = run_lens(found.subject, read_prompt(found, PROMPT).ids).baseline
    assert baseline is not None
    assert any(f"of {baseline:.2f} nats" in each.value for each in at.caption)


def test_a_prompt_that_is_too_long_asks_for_no_other(open_page: Open) -> None:
    at = ask(open_page("lens"), "kalo " * 3000, n_new=0)
    (problem,) = errors(at)
    assert "shorten" in problem
    assert not at.info


def test_a_long_prompt_is_read_in_parts(
    open_page: Open, prompt: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lensing, "most_at_once", lambda subject: 3)
    at = open_page("lens", prompt=prompt, token=4)
    assert errors(at) == []
    grid = grid_of(at)
    assert len(grid["columns"]) == 3
    assert grid["selected"][1] == 1
    assert any("Tokens 4 to 6 of" in each.value for each in at.caption)
    at.selectbox(key="lens first token").set_value(0).run()
    assert errors(at) == []
    assert link(at)["token"] == "0"
    assert any("Tokens 1 to 3 of" in each.value for each in at.caption)


def test_a_chosen_head_is_marked_and_can_be_ablated(
    open_page: Open, prompt: str, root: Path
) -> None:
    at = open_page("lens", prompt=prompt, head=1, layer=1)
    assert errors(at) == []
    (chosen,) = [bar for each in parts_of(at, "bars") for bar in each["bars"] if bar["is_selected"]]
    assert chosen["name"] == "L1 H1"
    assert any("L1 H1" in each.value for each in at.markdown)
    at.text_input(key="ablation text").set_value(str(root / "unseen.txt"))
    at.button(key="ablate").click().run()
    assert errors(at) == []
    table = at.dataframe[0].value
    assert list(table["model"])[1] == "without L1 H1"
    assert len(table) == 5
    assert table["perplexity"][1] != table["perplexity"][0]


def test_a_head_that_is_not_there_is_said(open_page: Open, prompt: str) -> None:
    at = open_page("lens", head=99, prompt=prompt)
    assert errors(at) == []
    assert any("head 99" in each.value for each in at.warning)
    assert "head" not in link(at)
    assert not any("H99" in each.label for each in at.expander)
