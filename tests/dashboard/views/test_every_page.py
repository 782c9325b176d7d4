"""All pages: what each shows of every kind of model, and one clear message where it can't."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from markdown_it import MarkdownIt

from dashboard.prompts import Prompt, store
from dashboard.state.store import stored_prompts
from tests.dashboard.conftest import DECODER, GPT2, Open
from tests.dashboard.pages import (
    FAMILIES,
    GROUPING,
    NEURON,
    PAGES,
    SCRIPT,
    decoded,
    errors,
    link,
    maps_of,
)


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_page_shows_every_kind_of_model(family: str, page: str, open_page: Open) -> None:
    prompt = store(Prompt("kalo mi", 3), stored_prompts())
    at = open_page(page, projection=family, neuron=NEURON, prompt=prompt, pole=0, grouping=GROUPING)
    assert errors(at) == []
    assert len(at.title) == 1
    assert at.title[0].value != "No projection yet"
    # The link is whole: as it came.
    assert link(at) == {
        "projection": family,
        "layer": "1",
        "site": "mlp_post",
        "neuron": str(NEURON),
        "prompt": prompt,
        "pole": "0",
        "grouping": GROUPING,
    }
    assert at.sidebar.selectbox(key="choose projection").options == sorted(FAMILIES)
    assert "40 neurons" in at.sidebar.caption[0].value
    if page == "map":
        at.toggle(key="map beside").set_value(True).run()
        assert errors(at) == []
        panels = maps_of(at)[0]["panels"]
        assert [len(decoded(each["values"], np.uint8, -1)) for each in panels] == [40, 24]


def test_pages_are_told_apart_by_their_titles(open_page: Open) -> None:
    chosen = {"layer": 1, "site": "attn_out", "neuron": 7, "marked": "2-4"}
    titles = {page: open_page(page, **chosen).title[0].value.replace("\\", "") for page in PAGES}
    assert titles == {
        "overview": "Overview",
        "map": "Layer 1: attention output",
        "neuron": "L1 attn out N7",
        "prompt": "What a prompt activates",
        "lens": "How a prediction forms",
        "heads": "What attention heads do",
        "layer-time": "How hidden states move from layer to layer",
        "basis": "What a matrix does to the space",
        "contrast": "How two sets of prompts separate",
        "heatmap": "Correlations in layer 1: attention output",
        "across": "Neurons that correlate across layers",
        "poles": "Poles in layer 1: attention output",
        "pruning": "What pruning costs",
    }


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize(
    "params",
    [
        {"layer": 77, "site": "moon", "neuron": 10**8, "pole": 10**8, "token": 10**8},
        {"layer": -1, "neuron": "1e9", "pole": "x", "token": "٣", "marked": "0-9999999"},
        {"neuron": 39, "marked": "30-99", "pole": 999, "model": SCRIPT, "report": SCRIPT},
        {"grouping": "correlation,1000000,eom,99", "neuron": NEURON},
        {"site": SCRIPT, "neuron": NEURON, "grouping": SCRIPT},
    ],
)
def test_no_link_breaks_a_page(page: str, params: dict[str, object], open_page: Open) -> None:
    assert errors(open_page(page, **params)) == []


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("family", [DECODER, GPT2])
def test_every_page_shows_attention_too(family: str, page: str, open_page: Open) -> None:
    prompt = store(Prompt("kalo mi", 3), stored_prompts())
    at = open_page(page, projection=family, site="attn_out", neuron=NEURON, prompt=prompt)
    assert errors(at) == []
    assert link(at)["site"] == "attn_out"


@pytest.mark.parametrize("page", PAGES)
def test_names_of_folders_are_text(page: str, root: Path, start: Open, tmp_path: Path) -> None:
    """What is in them was written by someone else."""
    name = "<img src=x onerror=alert(1)> **b** $x$ [l](javascript:x)"
    own = tmp_path / "own"
    shutil.copytree(root / DECODER, own / name)
    shutil.copytree(root / "models" / DECODER, own / "models" / "<b>x")
    params = {"layer": 1, "site": "mlp_post", "neuron": NEURON, "model": "models/<b>x"}
    at = start(own, page, projection=name, **params).run()
    assert errors(at) == []
    assert at.sidebar.selectbox(key="choose projection").value == name
    assert at.sidebar.selectbox(key="choose model").value == "models/<b>x"
    shown = [*at.title, *at.caption, *at.markdown, *at.info, *at.warning, *at.subheader]
    assert len(shown) >= 2
    for each in shown:
        rendered = MarkdownIt("commonmark").render(each.value)
        assert "alert(1)" not in rendered
        assert "<b>" not in rendered
    assert not any("<img" in str(each.proto) for each in at.get("html"))  # type: ignore[union-attr]
