"""The Lens page: what layers read, what adds to a logit, and one line where neither is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dashboard.frame.residual import lensing
from dashboard.guest import Guest
from dashboard.prompts import Prompt, read_prompt, store
from dashboard.state.store import stored_prompts
from projector.corpus.pieces import readable
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
    at = open_page("lens", projection=family, prompt=prompt, token=2, reading=1)
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
    assert grid["selected"] == [2 * n_layers - 1, 2]
    parts, neurons = parts_of(at, "bars")
    assert len(parts["bars"]) > 5
    assert all(bar["can_pick"] for bar in neurons["bars"][:-1])
    said = " ".join(each.value for each in at.caption)
    assert "closure error" in said
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
    assert [each.value for each in at.info] == ["Type a prompt and press Run."]
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
    assert f"the logit of ‘{texts[0]}’ less that of ‘{texts[1]}’" in shown
    assert f"#{target}" in str(at.selectbox(key="lens target").value)
    assert f"#{against}" in str(at.selectbox(key="lens against").value)
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
    # A link that names no token of the model.
    at = open_page("lens", prompt=prompt, target=10**8)
    (problem,) = errors(at)
    assert "100000000" in problem or "100,000,000" in problem
    assert grid_of(at)["columns"]


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
    assert any("no head 99" in each.value for each in at.warning)
    assert "head" not in link(at)
    assert not any("H99" in each.label for each in at.expander)
