"""The picture of correlations, and which neurons a box on it chooses."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from dashboard.drawing import palette
from dashboard.drawing.cells import Cells, cells_of, usual_limit
from dashboard.drawing.figures import heatmap_figure, tree_figure
from projector.figures.brackets import Bracket
from pruning.poles.tree import Branch, CondensedTree


def correlations(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.corrcoef(rng.normal(size=(n, 40))).astype(np.float32)


def test_a_cell_is_a_pair_of_neurons() -> None:
    rho = correlations(30)
    order = np.random.default_rng(1).permutation(30)[:25]
    figure: Any = heatmap_figure(cells_of(rho, order), 0.5, "L3", (int(order[2]), 1000))
    picture, marks = figure.data
    assert list(picture.x) == list(picture.y) == [f"N{j}" for j in order]
    for a, b in itertools.product(range(25), repeat=2):
        assert picture.z[a][b] == pytest.approx(rho[order[a], order[b]], abs=6e-4)
    assert (picture.zmin, picture.zmax) == (-0.5, 0.5)
    assert "L3" in picture.hovertemplate
    # A mark stands on its neuron; one that is not there is nowhere.
    assert list(marks.x) == list(marks.y) == [f"N{order[2]}"]
    assert len(heatmap_figure(cells_of(rho, order), 0.5, "L3").data) == 1


@pytest.mark.parametrize("n", [513, 1024, 1100])
def test_of_many_neurons_a_cell_is_the_mean_over_its_pairs(n: int) -> None:
    rho = correlations(n)
    order = np.random.default_rng(1).permutation(n)
    marked = (int(order[n // 2]), int(order[n - 1]))
    figure: Any = heatmap_figure(cells_of(rho, order), 1.0, "L3", marked)
    picture, marks = figure.data
    size = -(-n // 512)
    cells = [order[k : k + size] for k in range(0, n, size)]
    assert len(picture.x) == len(set(picture.x)) == len(cells) <= 512
    for a, b in [(0, 0), (0, 1), (3, 200), (len(cells) - 1, 5), (len(cells) - 1, len(cells) - 1)]:
        pairs = [rho[i, j] for i in cells[a] for j in cells[b] if i != j]
        expected = np.mean(pairs) if pairs else np.nan
        np.testing.assert_allclose(picture.z[a][b], expected, atol=6e-4)
    for label, cell in zip(picture.x, cells, strict=True):
        assert label.split(", ")[0] == f"N{cell[0]}"
    homes = [next(k for k, cell in enumerate(cells) if j in cell) for j in marked]
    assert list(marks.x) == [picture.x[k] for k in homes]


def test_the_usual_limit_is_exceeded_by_one_pair_in_a_thousand() -> None:
    rho = correlations(400)
    limit = usual_limit(rho)
    pairs = np.abs(rho[np.triu_indices(400, 1)])
    assert 0.0005 < (pairs > limit).mean() < 0.0015
    rho[7] = rho[:, 7] = np.nan
    assert usual_limit(rho) == pytest.approx(limit, rel=0.1)
    assert usual_limit(np.full((3, 3), np.nan, dtype=np.float32)) == 1.0


def within(order: np.ndarray, boxes: list[dict[str, Any]]) -> list[int]:
    n = int(order.max()) + 1
    cells: Cells = cells_of(np.zeros((n, n), dtype=np.float32), order)
    return cells.within(boxes)


@pytest.mark.parametrize(
    ("box", "places"),
    [
        ({"x": [1.6, 3.4], "y": [1.6, 3.4]}, [2, 3]),
        ({"x": [3.4, 1.6], "y": [1.6, 3.4]}, [2, 3]),
        ({"x": [0, 1], "y": [7, 8]}, [0, 1, 7, 8]),
        ({"x": [-5, 0.2], "y": [8.7, 99]}, [0, 9]),
        ({"x": [4.2, 4.3]}, [4]),
        # Beside the picture.
        ({"x": [-5, -2], "y": [-9, -1]}, []),
        ({"x": [12, 15], "y": [11, 19]}, []),
        ({}, []),
        ({"x": [], "y": None}, []),
    ],
)
def test_a_box_chooses_the_rows_and_columns_it_touches(
    box: dict[str, Any], places: list[int]
) -> None:
    order = np.array([31, 5, 8, 12, 2, 44, 9, 1, 0, 17])
    assert within(order, [box]) == sorted(int(order[k]) for k in places)


def test_boxes_add_up_and_none_choose_none() -> None:
    order = np.arange(10)
    assert within(order, [{"x": [0, 1]}, {"y": [1, 2]}]) == [0, 1, 2]
    assert within(order, []) == []


def test_a_box_on_cells_of_many_chooses_all_of_their_neurons() -> None:
    order = np.random.default_rng(0).permutation(1100)
    # Three to a cell; the last has two.
    assert within(order, [{"x": [1, 2]}]) == sorted(order[3:9].tolist())
    assert within(order, [{"y": [365.9, 900]}]) == sorted(order[1098:].tolist())


def condensed(first: float, last: float) -> CondensedTree:
    """All neurons, then two poles, with densities from the first split to the end."""

    def branch(pole: int | None, low: float, high: float) -> Branch:
        return Branch(pole, (0.0, 4.0, 4.0, 0.0), (low, low, high, high), 4)

    return CondensedTree(
        (branch(None, 0.0, first), branch(0, first, last), branch(1, first, last / 2 + first / 2))
    )


@pytest.mark.parametrize("last", [2.0, 70.0])
def test_the_tree_s_axis_has_no_density_below_zero(last: float) -> None:
    figure: Any = tree_figure(condensed(1.0, last))
    bottom, top = figure.layout.yaxis.range
    assert bottom == last
    assert 0 <= top < 1


@pytest.mark.parametrize("dark", [False, True])
def test_groups_have_the_map_s_colours_in_the_tree_and_beside_the_heatmap(dark: bool) -> None:
    table = palette.groups(dark=dark)
    expected = [palette.hex_of(table, index) for index in (2, 1)]
    figure: Any = tree_figure(condensed(1.0, 2.0), (2, 1), dark=dark)
    assert [trace.fillcolor for trace in figure.data[1:]] == expected
    cells = cells_of(correlations(6), np.arange(6))
    brackets = (Bracket(0, 2, "a", 0), Bracket(3, 5, "b", 1))
    drawn: Any = heatmap_figure(cells, 0.5, "L3", brackets=brackets, group_colors=(2, 1), dark=dark)
    assert [shape.line.color for shape in drawn.layout.shapes] == expected
