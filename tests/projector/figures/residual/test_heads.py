"""The page of a model's heads: it shows what was found, beside chance, and escapes all text."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from functools import cache

import torch

from projector.corpus.pieces import Pieces
from projector.figures.residual.heads import heads_page, scores_figure
from projector.figures.residual.patterns import pattern_html
from projector.residual.heads.report import HeadsReport, heads
from tests.families import subject_of

IDS = [(13 * i + 5) % 300 for i in range(9)]


class Marked(Pieces):
    """Tokens whose texts would run if they weren't escaped."""

    def text(self, token_id: int) -> str:
        return f"<i>{token_id}</i>"

    def __contains__(self, token_id: int) -> bool:
        return True


@cache
def found() -> HeadsReport:
    report = heads(
        subject_of("llama"), IDS, show="0.1,1.2", n_sequences=1, length=8, n_random=4, position=5
    )
    assert report.prompt is not None
    texts = (" </script><b>", *report.prompt.texts[1:])
    empty = torch.zeros(0, dtype=torch.int64)
    return replace(
        report,
        model="a<b>",
        prompt=replace(report.prompt, texts=texts),
        texts=Marked(empty, empty, empty.to(torch.uint8), empty.bool()),
        reasons=("what <is> missing",),
    )


def test_the_page_escapes_what_is_of_a_model_or_a_prompt() -> None:
    page = heads_page(found())
    for text in ("a<b>", "<i>", "</script><b>", "<is>"):
        assert text not in page
    assert "&lt;i&gt;" in page
    assert "what &lt;is&gt; missing" in page


def test_every_part_is_on_the_page_beside_its_control() -> None:
    report = found()
    page = heads_page(report)
    assert report.virtual is not None
    assert report.compositions is not None
    # A cell of the grid for each of 2 × 4 heads, a pattern for each of the two shown.
    assert page.count("<td title=") + page.count("<td style=") == 8
    assert page.count('<div class="pattern"') == 2
    # OV and QK of both heads, and of the second also through the MLPs before it.
    assert page.count("Random: ") == 6
    for each in report.virtual.rows:
        name = f"L{each.first[0]} H{each.first[1]} → L{each.second[0]} H{each.second[1]}"
        assert name in page
    assert f"{sorted(report.virtual.control)[-1]:.2f} at most" in page
    composed = report.compositions.strongest(1, "K")[0]
    assert f"{composed.null_mean:.3f} ± {composed.null_std:.3f}" in page
    assert "-0." not in re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)


def test_a_page_without_a_prompt_has_no_patterns_and_no_paths() -> None:
    report = replace(found(), prompt=None, virtual=None)
    page = heads_page(report)
    assert 'class="pattern"' not in page
    assert "→ L" not in page
    assert "Composition" in page


def test_scores_have_a_grid_a_kind() -> None:
    report = found()
    figure = scores_figure(report.scores)
    assert len(figure.data) == 6
    induction = figure.data[2].z
    assert induction.shape == (2, 4)
    assert induction[1, 3] == report.scores.rows[7].induction


def test_a_pattern_keeps_its_shares() -> None:
    pattern = torch.tensor([[1.0, 0.0], [0.25, 0.75]])
    given = pattern_html(pattern, 1, 'of "L0"')
    data = re.search('data-shares="([^"]*)"', given)
    assert data is not None
    assert list(base64.b64decode(data[1])) == [255, 0, 64, 191]
    assert 'aria-label="of &quot;L0&quot;"' in given
