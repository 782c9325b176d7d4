"""Pairs of tokens as they are shown: beside chance, and with blanks that can be read."""

from __future__ import annotations

import pytest
import torch

from dashboard.drawing.text import joined_list
from dashboard.residual.joined import Pairs, Row, _shown
from projector.corpus.pieces import Pieces
from projector.residual.circuits.pairs import TopPairs


@pytest.mark.parametrize(
    ("highest", "is_chance"), [(34.6, True), (30.0, True), (35.5, False), (90.0, False)]
)
def test_scores_that_random_coordinates_give_too_are_chance(
    highest: float, is_chance: bool
) -> None:
    pairs = Pairs((Row("a", (("b", 1.0), ("c", highest))),), spread=2.0, control=33.4)
    assert pairs.highest == highest
    assert pairs.is_chance is is_chance


def test_a_token_of_blanks_is_short() -> None:
    class Blanks(Pieces):
        def text(self, token_id: int) -> str:
            return " " * token_id

    none = torch.zeros(0, dtype=torch.int64)
    blanks = Blanks(none, none, none.to(torch.uint8), none.bool())
    found = TopPairs(torch.tensor([24]), torch.tensor([[11, 1]]), torch.tensor([[2.0, 1.0]]), 1, 1)
    (row,) = _shown(found, blanks).rows
    assert row.token == "␣×24"
    assert [text for text, _ in row.to] == ["␣×11", "␣"]
    assert "opacity:0.6" in joined_list([(row.token, row.to)], is_faint=True)
