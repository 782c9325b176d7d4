"""Faithfulness figures against independent computations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import squareform
from scipy.stats import spearmanr
from torch import Tensor

from projector.layouts import costs as room
from projector.layouts.costs import dissimilarity, nearest_on_map, overlap_of
from projector.layouts.solving import Layout, place
from projector.projection.faithfulness import N_NEIGHBOURS, measure


def correlation_of(n: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(800, 5, generator=generator) @ torch.randn(5, n, generator=generator)
    return torch.corrcoef((rows + torch.randn(800, n, generator=generator)).T)


def overlap_by_loops(positions: Tensor, rho: Tensor) -> float:
    distance, target = torch.cdist(positions, positions).numpy(), (1 - rho).numpy()
    shares = []
    for i in range(len(positions)):
        others = [j for j in range(len(positions)) if j != i]
        on_map = sorted(others, key=lambda j: distance[i, j])[:N_NEIGHBOURS]
        by_rho = sorted(others, key=lambda j: target[i, j])[:N_NEIGHBOURS]
        shares.append(len(set(on_map) & set(by_rho)) / N_NEIGHBOURS)
    return float(np.mean(shares))


def test_figures_are_what_they_say() -> None:
    rho = correlation_of(40)
    positions = place(rho)
    figures = measure(positions, rho, Layout())
    distance = torch.cdist(positions, positions)
    pairs = torch.triu_indices(40, 40, offset=1)
    d, t = distance[pairs[0], pairs[1]].double(), (1 - rho)[pairs[0], pairs[1]].double()
    assert figures.stress == pytest.approx(float((d - t).square().mean()), rel=1e-5)
    assert figures.stress_1 == pytest.approx(
        float(((d - t).square().sum() / d.square().sum()).sqrt()), rel=1e-5
    )
    assert figures.rank_correlation == pytest.approx(
        spearmanr(squareform(distance.numpy(), checks=False), t.numpy()).statistic, abs=1e-6
    )
    assert figures.neighbour_overlap == pytest.approx(overlap_by_loops(positions, rho))
    assert figures.chance_overlap == pytest.approx(10 / 39)


def test_a_perfect_map_and_a_random_one() -> None:
    points = torch.randn(300, 3) * 0.2
    rho = 1 - torch.cdist(points, points).clamp(max=2)
    perfect = measure(points, rho, Layout())
    assert perfect.stress == pytest.approx(0, abs=1e-10)
    assert perfect.neighbour_overlap == 1
    assert perfect.rank_correlation == pytest.approx(1)
    random = measure(torch.randn(300, 3), rho, Layout())
    assert random.neighbour_overlap is not None
    assert random.chance_overlap is not None
    assert abs(random.neighbour_overlap - random.chance_overlap) < 0.02
    assert random.rank_correlation == pytest.approx(0, abs=0.1)


def test_stability_compares_the_two_halves() -> None:
    rho = correlation_of(60)
    positions = place(rho)
    same = measure(positions, rho, Layout(), (rho, rho), (positions, positions))
    assert same.stability == same.correlation_stability == 1
    # A map turned and mirrored keeps its neighbours.
    turned = measure(positions, rho, Layout(), (rho, rho), (positions, -positions.flip(1)))
    assert turned.stability == 1
    other = torch.randperm(60)
    shuffled = measure(
        positions, rho, Layout(), (rho, rho[other][:, other]), (positions, positions[other])
    )
    assert shuffled.stability is not None
    assert shuffled.stability < 0.4


def test_a_neuron_undefined_in_one_half_is_left_out_of_stability() -> None:
    rho = correlation_of(30)
    positions = place(rho)
    gap, gap_rho = positions.clone(), rho.clone()
    gap[4] = torch.nan
    gap_rho[4] = gap_rho[:, 4] = torch.nan
    figures = measure(positions, rho, Layout(), (rho, gap_rho), (positions, gap))
    assert figures.stability == 1


def test_what_is_unknown_is_null_with_its_reason() -> None:
    rho = correlation_of(30)
    neighbours = measure(place(rho), rho, Layout(objective="neighbours"))
    assert neighbours.stress is neighbours.stress_1 is None
    assert "don't represent" in neighbours.reasons["stress"]
    assert neighbours.neighbour_overlap is not None
    assert neighbours.stability is None
    assert "halves" in neighbours.reasons["stability"]
    few = measure(place(rho[:6, :6]), rho[:6, :6], Layout())
    assert few.neighbour_overlap is None
    assert "too few" in few.reasons["neighbour_overlap"]
    assert few.stress is not None
    nothing = measure(torch.randn(9, 3), None, Layout())
    values = nothing.as_dict()
    reasons = values.pop("reasons")
    assert set(values) == set(reasons)  # type: ignore[call-overload]
    assert all(value is None for value in values.values())
    without_maps = measure(place(rho), rho, Layout(), (rho, rho), no_halves="single")
    assert without_maps.reasons == {"stability": "single"}
    assert without_maps.correlation_stability == 1
    undefined = torch.full((20, 20), torch.nan)
    assert measure(torch.full((20, 3), torch.nan), undefined, Layout()).stress is None
    together = measure(torch.zeros(20, 3), torch.ones(20, 20), Layout())
    assert together.stress_1 is together.rank_correlation is None
    assert {"stress_1", "rank_correlation"} <= set(together.reasons)


def test_undefined_neurons_do_not_count() -> None:
    rho = correlation_of(31)
    rho[7] = rho[:, 7] = torch.nan
    rest = [i for i in range(31) if i != 7]
    positions = place(rho)
    assert measure(positions, rho, Layout()) == measure(
        positions[rest], rho[rest][:, rest], Layout()
    )


def test_absolute_maps_are_judged_by_absolute_correlations() -> None:
    rho = correlation_of(40)
    sign = torch.where(torch.arange(40) % 2 == 0, 1.0, -1.0)
    mixed = rho.abs() * sign[:, None] * sign
    layout = Layout(absolute=True)
    positions = place(mixed, absolute=True)
    assert measure(positions, mixed, layout) == measure(positions, rho.abs(), layout)


def test_blocks_and_samples_change_little(monkeypatch: pytest.MonkeyPatch) -> None:
    rho = correlation_of(120)
    positions = place(rho)
    whole = measure(positions, rho, Layout())
    near = nearest_on_map(positions)
    monkeypatch.setattr("projector.layouts.costs._BLOCK_ENTRIES", 500)
    monkeypatch.setattr(room, "_MOST_PAIRS", 5000)
    assert torch.equal(nearest_on_map(positions), near)
    sampled = measure(positions, rho, Layout())
    assert sampled.neighbour_overlap == whole.neighbour_overlap
    assert sampled.rank_correlation == pytest.approx(whole.rank_correlation, abs=0.03)


def test_overlap_worked_by_hand() -> None:
    a = torch.tensor([[1, 2], [0, 2], [0, 1]])
    b = torch.tensor([[2, 1], [0, 1], [3, 4]])
    assert overlap_of(a, b) == pytest.approx(3 / 6)


def test_dissimilarity_of_neighbours_is_clipped() -> None:
    assert (dissimilarity(torch.tensor([[1.0, 1.0001], [1.0001, 1.0]])) >= 0).all()
