"""The page of a layer-time: whole, offline, and safe with any token."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from projector.errors import UserError
from projector.figures.layer_time.data import viewer_data
from projector.figures.layer_time.page import layer_time_page, write_layer_time_page
from projector.figures.layer_time.words import facts_of
from tests.projector.figures.layer_time.made import ATTACK, two_prompts


def test_a_page_holds_the_data_and_asks_for_nothing() -> None:
    report, tensors = two_prompts()
    page = layer_time_page(report, tensors, selected={"prompt": 0, "token": 3})
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page)
    assert found is not None
    data = json.loads(found[1])
    assert data["prompts"][0]["tokens"][3]["name"] == ATTACK
    assert data["id"] == viewer_data(report, tensors)["id"]
    assert data["selected"] == {"prompt": 0, "token": 3}
    assert ATTACK not in page
    assert "default-src 'none'" in page
    assert not re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="(?!data:)', page)
    # What the script names are namespaces; it ends neither itself nor the style.
    assert not re.findall(r"https?://(?!www\.w3\.org/)", page)
    assert page.lower().count("</script") == 3
    assert page.lower().count("</style") == 1


def test_what_was_found_is_said() -> None:
    report, _ = two_prompts()
    said = " ".join(facts_of(report))
    assert "“␣cat” in A, “␣dog” in B" in said
    assert "Layer 1 " in said
    assert "3e−07" in said
    # What is said of the tokens before the first unlike one follows the sentence that names it.
    first, zeros, *_ = facts_of(report)
    assert "“␣dog” in B" in first
    assert "3e−07" in zeros
    assert "“<s>” (token 0 of A) and “<s>” (token 0 of B)" in said
    report |= {"first_difference": None, "causal_zeros": None, "outliers": []}
    assert facts_of(report) == []
    report |= {"reasons": {"first_difference": "the prompts are equal"}}
    report |= {"causal_zeros": {"max_error": 0.0, "tokens": 4}}
    equal, zeros = facts_of(report)
    assert "equal" in equal
    assert "all 4 tokens" in zeros


def test_a_page_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    report, tensors = two_prompts()
    path = tmp_path / "layer-time.html"
    write_layer_time_page(report, tensors, path)
    assert path.read_text(encoding="utf-8") == layer_time_page(report, tensors)
    with pytest.raises(UserError):
        write_layer_time_page(report, tensors, path / "below.html")
    assert [each.name for each in tmp_path.iterdir()] == ["layer-time.html"]
