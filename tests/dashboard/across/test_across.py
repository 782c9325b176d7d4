"""Partners across layers as pages list and count them, against the plainest way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from dashboard.across.measures import MEASURES, by_distance, matrix
from dashboard.across.partners import Side, partners_of, strongest_pairs
from dashboard.across.pictures import matrix_figure
from dashboard.across.words import standing, summary
from projector.statistics.cross_layer.partners import (
    PartnerList,
    Partners,
    Ranked,
    best_of_columns,
    strongest,
)
from projector.statistics.cross_layer.records import (
    Control,
    CrossLayerFacts,
    LayerPair,
    Level,
    layer_pairs,
)
from tests.refused import lacking

LAYERS, N, K = (0, 1, 4), 12, 3


@pytest.fixture(scope="module")
def rho() -> dict[tuple[int, int], torch.Tensor]:
    """Correlations of every two layers, (earlier neurons, later neurons)."""
    rows = {layer: np.random.default_rng(layer).normal(size=(9, N)) for layer in LAYERS}
    return {
        (i, j): torch.tensor(np.corrcoef(rows[i].T, rows[j].T)[:N, N:]).float()
        for i, j in layer_pairs(LAYERS)
    }


@pytest.fixture(scope="module")
def partners(rho: dict[tuple[int, int], torch.Tensor]) -> dict[int, Partners]:
    def side(layer: int, others: list[int]) -> PartnerList:
        parts = []
        for other in others:
            table = rho[other, layer] if other < layer else rho[layer, other].T
            values, which = best_of_columns(table, K)
            parts.append((other, Ranked(values, which.int())))
        return strongest(parts, N, K)

    return {
        layer: Partners(
            side(layer, [each for each in LAYERS if each < layer]),
            side(layer, [each for each in LAYERS if each > layer]),
        )
        for layer in LAYERS
    }


def test_partners_and_pairs_are_those_of_greatest_correlation(
    rho: dict[tuple[int, int], torch.Tensor], partners: dict[int, Partners]
) -> None:
    sides: tuple[Side, ...] = ("earlier", "later")
    first, last = (partners_of(partners[1], side, 5) for side in sides)
    best = rho[0, 1][:, 5].abs().argsort(descending=True)[:K].tolist()
    assert [(each.layer, each.neuron) for each in first] == [(0, j) for j in best]
    assert [each.rho for each in first] == [float(rho[0, 1][j, 5]) for j in best]
    assert {each.layer for each in last} == {4}
    assert partners_of(partners[0], "earlier", 5) == ()
    # Of two layers, what either neuron keeps is found once, with its sign.
    for i, j in layer_pairs(LAYERS):
        found = strongest_pairs((i, j), partners[i], partners[j], 4)
        kept = {
            (p.neuron, n) for n in range(N) for p in partners_of(partners[j], "earlier", n)
            if p.layer == i
        } | {
            (n, p.neuron) for n in range(N) for p in partners_of(partners[i], "later", n)
            if p.layer == j
        }  # fmt: skip
        ranked = sorted(kept, key=lambda pair: -abs(float(rho[i, j][pair])))
        assert [(each.earlier, each.later) for each in found] == ranked[:4]
        assert [each.rho for each in found] == [float(rho[i, j][pair]) for pair in ranked[:4]]
        # One neuron of the earlier layer at most so many times.
        once = strongest_pairs((i, j), partners[i], partners[j], 99, 1)
        firsts = [each.earlier for each in once]
        assert firsts == list(dict.fromkeys(pair[0] for pair in ranked))
        # The strongest of all is among them.
        assert abs(found[0].rho) == float(rho[i, j].abs().max()) or i == 0


def made(earlier: int, later: int, best: float) -> LayerPair:
    return LayerPair(
        earlier,
        later,
        Level(best, best + 0.2),
        Control(best / 2, best / 2 + 0.1, 0.5 + best),
        Control(0.02, 0.03, 1.0),
    )


def test_the_matrix_its_lines_and_its_words_say_the_same() -> None:
    lacks = LayerPair(1, 4, reason="no neuron of <layer> 4 varies")
    pairs = (made(0, 1, 0.3), made(0, 4, 0.1), lacks)
    facts = CrossLayerFacts(50, 0, 2, "", n_undefined=dict.fromkeys(LAYERS, 0), pairs=pairs)
    measure = MEASURES["median"]
    neurons, rotated, shuffled = measure.panels.values()
    nan = np.nan
    expected = [[nan, nan, nan], [0.3, nan, nan], [0.1, nan, nan]]
    np.testing.assert_allclose(matrix(facts, neurons), expected)
    assert [(p.distance, p.mean, p.n_pairs) for p in by_distance(facts, rotated)] == [
        (1, 0.15, 1),
        (4, 0.05, 1),
    ]
    assert [p.mean for p in by_distance(facts, shuffled)] == [0.02, 0.02]
    above, by_chance = MEASURES["above"].panels.values()
    assert [above(pair) for pair in pairs] == [0.8, 0.6, None]
    assert [by_chance(pair) for pair in pairs] == [0.05, 0.05, None]
    figure = matrix_figure(facts, measure, "Neurons", 0.3, pairs[1])
    (heatmap,) = figure.data
    np.testing.assert_allclose(heatmap.z, [[0.3, nan], [0.1, nan]])
    assert (figure.layout.shapes[0].x0, figure.layout.shapes[0].y0) == (-0.5, 0.5)
    assert "Layers 0 and 4" in heatmap.customdata[1][0]
    assert "Control: rotated axes: 0.05" in heatmap.customdata[1][0]
    assert "&lt;layer&gt;" in heatmap.customdata[1][1]
    for text in ("0.20", "layers 0 and 1: 0.30", "neighbouring layers", "layers 4 apart"):
        assert text in summary(facts, measure)


def test_a_neuron_is_held_against_its_own_control_and_the_layers_level() -> None:
    best = torch.linspace(0.1, 0.9, 41)
    none = torch.zeros(41, 1, dtype=torch.int32)
    found = PartnerList(-best[:, None], none, none, torch.full((41,), 0.69))
    for neuron, words in ((0, "does not exceed 0.69"), (30, "exceeds 0.69")):
        told = standing(found, "later", neuron)
        assert told is not None
        assert lacking(told, f"|ρ| {best[neuron]:.2f}", "random axes: 0.69") == []
        assert words in told
        assert lacking(told, "11 of", "41 neurons (27%)", "later layers") == []
    assert standing(replace(found, rotated=None), "later", 0) is None
