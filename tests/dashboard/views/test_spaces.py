"""Texts of tokenizers that mark the starts of words have their spaces, on every page."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from tests.dashboard.conftest import SPACED, Open, save_llama
from tests.dashboard.pages import ask, errors, tokens_of
from tests.pruning.test_preparing import fit


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("llama")
    save_llama(root / "models" / "llama")
    (root / "text.txt").write_text(SPACED * 60, encoding="utf-8")
    fit(root / "models" / "llama", root / "text.txt", root / "llama", "--sites", "mlp_post")
    return root


def excerpts(at: AppTest) -> list[str]:
    """The texts of the page's tokens, one text a paragraph."""
    found = []
    for each in at.get("html"):
        if "border-bottom" not in str(each.proto.body):  # type: ignore[union-attr]
            continue
        for part in str(each.proto.body).split("white-space:pre-wrap")[1:]:  # type: ignore[union-attr]
            spans = re.findall(r"<span[^>]*>([^<]*)</span>", part)
            found.append(unescape("".join(spans)))
    return [text for text in found if text]


def test_a_prompt_keeps_its_spaces(llama: Path, start: Open) -> None:
    at = start(llama, "prompt", projection="llama", layer=1, site="mlp_post").run()
    at = ask(at, "the method of the self", n_new=0)
    assert errors(at) == []
    # The decoder leaves out the space before a text's first word, and shows all others.
    shown = "".join(token["text"] for token in tokens_of(at)[1:])
    assert shown.lstrip(" ") == "the method of the self"


@pytest.mark.parametrize("on_every_token", [False, True])
def test_excerpts_of_a_neuron_keep_their_spaces(
    on_every_token: bool, llama: Path, start: Open
) -> None:
    at = start(llama, "neuron", projection="llama", layer=1, site="mlp_post", neuron=3).run()
    if on_every_token:
        at.toggle(key="color every token").set_value(True).run()
    assert errors(at) == []
    found = excerpts(at)
    assert len(found) >= 3
    for text in found:
        shown = text.removeprefix("<s>").strip()
        assert len(shown) > 8
        assert shown in SPACED * 3
