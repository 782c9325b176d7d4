"""All heads as a table: kept as JSON, and drawn by kind or by a score."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dashboard.residual.head_table import (
    KIND,
    HeadTable,
    found_words,
    head_grid,
    heads_text,
    kind_color,
    layer_of,
    own_kind,
    read_heads,
)
from projector.errors import UserError
from projector.residual.heads.kinds import KINDS


def row(layer: int, head: int, *kinds: str, **scores: float) -> dict[str, Any]:
    found: dict[str, Any] = {"layer": layer, "head": head, "kv_group": 0, "kinds": list(kinds)}
    for kind in KINDS:
        found[kind.name] = scores.get(kind.name, 0.01)
        found[f"{kind.name}_percentile"] = 100.0 if kind.name in kinds else 40.0
    return found


FOUND: dict[str, Any] = {
    "rows": [
        row(0, 0, "previous_token", previous_token=0.9),
        row(0, 1),
        row(2, 0, "induction", "copying", induction=0.4, copying=0.7),
    ],
    "kinds": {
        kind.name: {"n_found": 1, "n_expected_by_chance": 0.02, "heads": []} for kind in KINDS
    },
    "reasons": ["layer 1 has no attention"],
    "left_out_of_qk": {"0": ["rotary position embedding"]},
    "n_random": 100,
}


def test_what_is_kept_comes_back() -> None:
    table = read_heads(heads_text(FOUND))
    assert table == HeadTable.of_dict(FOUND)
    assert table is not None
    assert table.layers == [0, 2]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"version": 0}', json.dumps({"version": 2, "heads": {"rows": 3}})]
)
def test_what_can_not_be_read_is_computed_again(text: str) -> None:
    assert read_heads(text) is None


def test_the_last_layer_is_on_top_and_a_missing_head_is_an_empty_cell() -> None:
    table = HeadTable.of_dict(FOUND)
    grid = head_grid(table, KIND, (2, 0))
    assert list(grid.rows) == ["layer 2", "layer 0"]
    assert layer_of(table, 0) == 2
    assert grid.selected == (0, 0)
    # Of two kinds, that of the higher score, and how many more there are.
    assert [cell.text for cell in grid.cells[0]] == ["copying +1", ""]
    assert [cell.text for cell in grid.cells[1]] == ["previous", ""]
    assert grid.cells[0][0].fill == kind_color(4)
    assert grid.cells[1][1].fill == ""
    assert "0.40, above 100 % of random" in grid.cells[0][0].tip
    assert own_kind(FOUND["rows"][1]) is None


def test_a_score_stands_in_its_cell() -> None:
    grid = head_grid(HeadTable.of_dict(FOUND), "induction", None)
    assert [cell.text for cell in grid.cells[0]] == ["0.40", ""]
    assert grid.selected == (None, None)


def test_kinds_stand_beside_what_chance_gives() -> None:
    assert "induction 1 (by chance 0.0)" in found_words(HeadTable.of_dict(FOUND))


def test_heads_without_scores_can_be_chosen_all_the_same() -> None:
    table = HeadTable.without_scores([2, 0, 1], "no reason")
    grid = head_grid(table, KIND, None)
    assert list(grid.rows) == ["layer 2", "layer 0"]
    assert table.row(0, 1) is not None
    assert table.row(2, 1) is None
    with pytest.raises(UserError):
        head_grid(HeadTable.without_scores([0], "none"), KIND, None)


@pytest.mark.parametrize("dark", [False, True])
def test_each_kind_has_a_colour_of_its_own(dark: bool) -> None:
    assert len({kind_color(k, dark=dark) for k in range(len(KINDS))}) == len(KINDS)
