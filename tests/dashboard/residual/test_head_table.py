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
    layer_of,
    left_out_words,
    read_heads,
)
from projector.errors import UserError
from projector.figures.residual.kinds import COLOURS, LETTERS
from projector.residual.heads.kinds import KINDS
from tests.refused import lacking


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
        row(2, 0, "copying_through_mlps", "induction", induction=0.4, copying_through_mlps=0.99),
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
    # A head of two kinds shows both, whichever score is the higher.
    assert [cell.text for cell in grid.cells[0]] == ["IM", ""]
    assert [cell.text for cell in grid.cells[1]] == ["P", ""]
    fill = grid.cells[0][0].fill
    assert 0 < fill.index(COLOURS["induction"]) < fill.index(COLOURS["copying_through_mlps"])
    assert COLOURS["previous_token"] in grid.cells[1][0].fill
    assert grid.cells[1][1].fill == ""
    assert lacking(grid.cells[0][0].tip, "induction", "copying", "0.40", "100 %") == []


def test_a_score_stands_in_its_cell() -> None:
    grid = head_grid(HeadTable.of_dict(FOUND), "induction", None)
    assert [cell.text for cell in grid.cells[0]] == ["0.40", ""]
    assert grid.selected == (None, None)


def test_kinds_stand_beside_what_chance_gives() -> None:
    assert "induction 1 (0.0 " in found_words(HeadTable.of_dict(FOUND))


def test_heads_without_scores_can_be_chosen_all_the_same() -> None:
    table = HeadTable.without_scores([2, 0, 1], "no reason")
    grid = head_grid(table, KIND, None)
    assert list(grid.rows) == ["layer 2", "layer 0"]
    assert table.row(0, 1) is not None
    assert table.row(2, 1) is None
    with pytest.raises(UserError):
        head_grid(HeadTable.without_scores([0], "none"), KIND, None)


def test_each_kind_has_a_letter_and_a_colour_of_its_own() -> None:
    names = [kind.name for kind in KINDS]
    assert len({LETTERS[name] for name in names}) == len(names)
    assert len({COLOURS[name] for name in names}) == len(names)


def test_what_shapes_attention_besides_the_weights_is_said_once_for_all_layers() -> None:
    same = {"0": ("RoPE",), "2": ("RoPE",)}
    table = HeadTable.of_dict(FOUND | {"left_out_of_qk": same})
    (line,) = left_out_words(table)
    assert lacking(line, "W_QK", "RoPE") == []
    assert "layer" not in line
    table = HeadTable.of_dict(FOUND | {"left_out_of_qk": {"0": ("RoPE", "a bias"), "2": ()}})
    (line,) = left_out_words(table)
    assert lacking(line, "W_QK", "layers 0", "RoPE, a bias") == []
    assert left_out_words(HeadTable.without_scores([2], "none")) == []
