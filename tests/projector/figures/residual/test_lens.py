"""The page of a lens: every text of a model or user is escaped, and no network is needed."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import torch

from projector.corpus.pieces import Pieces
from projector.figures.residual import lens as page_module
from projector.figures.residual.lens import kl_figure, lens_page
from projector.model.loading import LoadedModel
from projector.residual.lens import Lens, run_lens
from projector.residual.subject import Subject
from tests.families import build

ATTACK = "<script>alert('x')</script>"


def _lens(tokenizer: Any, family: str = "llama", n: int = 12) -> Lens:
    subject = Subject(LoadedModel(build(family), tokenizer, ATTACK, "0" * 64))
    return run_lens(subject, torch.randint(2, 320, (n,)).tolist())


def test_all_text_is_escaped(tokenizer: Any) -> None:
    pieces = Pieces._of_bytes({i: ATTACK.encode() + b'"\n' for i in range(320)}, set())
    page = lens_page(replace(_lens(tokenizer), pieces=pieces))
    assert ATTACK not in page
    assert not re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="http', page)
    tips = re.findall(r'data-tip="([^"]*)"', page)
    assert len(tips) == 5 * 12
    assert all("&lt;script&gt;" in tip and "<" not in tip for tip in tips)


def test_the_grid_has_the_last_tokens_of_a_long_prompt(tokenizer: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(page_module, "MOST_TOKENS", 4)
    page = lens_page(_lens(tokenizer))
    assert len(re.findall("data-tip=", page)) == 5 * 4
    assert "position 11" in page
    assert "position 7" not in page
    assert "last 4 tokens" in page


def test_curves_have_the_averages_and_the_baseline(tokenizer: Any) -> None:
    found = _lens(tokenizer, "gpt_neox")
    band, line, baseline = kl_figure(found).data
    assert line.y == tuple(each.kl for each in found.summaries)
    assert line.x == ("0 pre", "0 post", "1 post")
    assert set(baseline.y) == {found.baseline}
    assert len(band.y) == 6
    # Of the reading that this family has not, the page tells why.
    assert found.missing is not None
    assert found.missing in lens_page(found)


def test_a_first_reading_far_above_the_others_does_not_flatten_them(tokenizer: Any) -> None:
    found = _lens(tokenizer)
    highest = max(each.kl for each in found.summaries[2:] if each.kl is not None)
    for factor, is_cut in ((1.5, False), (60, True)):
        kl = found.kl.clone()
        kl[:2] = factor * highest
        changed = replace(found, kl=kl)
        ends = kl_figure(changed).layout.yaxis.range
        assert (ends is not None) == is_cut
        if is_cut:
            assert highest < ends[1] < 2 * highest


def test_the_grid_shows_all_its_rows(tokenizer: Any) -> None:
    style = re.findall(r"\.lens \{[^}]*\}", lens_page(_lens(tokenizer)))
    assert style
    assert "height" not in style[0]
