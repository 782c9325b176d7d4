"""What majorization promises, however it is accelerated."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from projector.layouts.costs import dissimilarity, stress_figures
from projector.layouts.kernels import Correlations, Distances, GuttmanStep, Target, tiled
from projector.layouts.settings import STARTS, Layout
from projector.layouts.solvers import smacof
from projector.layouts.solvers.smacof import minimize_stress, minimize_stresses
from projector.layouts.solving import solve, solve_all
from projector.layouts.start import start_positions
from projector.processor import in_threads


def grouped(n: int, seed: int = 0) -> Tensor:
    """Correlation of neurons in groups of many sizes, some opposed to their group."""
    generator = torch.Generator().manual_seed(seed)
    factors = torch.randn(1500, n // 12 + 2, generator=generator)
    group = (torch.rand(n, generator=generator) ** 2 * factors.shape[1]).long()
    sign = torch.where(torch.rand(n, generator=generator) < 0.2, -1.0, 1.0)
    rows = factors[:, group] * sign + torch.randn(1500, n, generator=generator)
    return torch.corrcoef(rows.T).reshape(n, n)


def start_of(target: Tensor, start: str = "classical", seed: int = 0, dim: int = 3) -> Tensor:
    return start_positions(start, target, dim, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("n", [2, 3, 5, 60, 250])
def test_stress_never_rises(start: str, n: int) -> None:
    target = dissimilarity(grouped(n))
    found = minimize_stress(target, start_of(target, start))
    stresses = np.array(found.stresses)
    assert (np.diff(stresses) <= 1e-6 * stresses[:-1]).all()
    assert found.stresses[-1] == pytest.approx(
        stress_figures(found.positions.double(), target.double())[0], rel=1e-4, abs=1e-9
    )


def plain_majorization(target: Tensor, start: Tensor, n_steps: int) -> float:
    """Raw stress after so many plain steps, in float64 by the formula."""
    points, wanted = start.double() - start.double().mean(dim=0), target.double()
    for _ in range(n_steps):
        distance = torch.cdist(points, points)
        pull = torch.where(distance > 0, wanted / distance, 0.0)
        points = (pull.sum(dim=1, keepdim=True) * points - pull @ points) / len(points)
    return stress_figures(points, wanted)[0]


def test_it_gets_as_low_as_a_thousand_plain_steps_in_a_tenth_of_the_passes() -> None:
    target = dissimilarity(grouped(200))
    start = start_of(target)
    found = minimize_stress(target, start)
    assert found.n_passes <= 100
    assert found.stresses[-1] <= 1.002 * plain_majorization(target, start, 1000)


def test_the_first_passes_bring_most() -> None:
    target = dissimilarity(grouped(200))
    found = minimize_stress(target, start_of(target))
    assert found.stresses[12] <= 1.03 * found.stresses[-1]


def test_where_it_stops_nothing_pulls_any_more() -> None:
    target = dissimilarity(grouped(80))
    found = minimize_stress(target, start_of(target), tolerance=1e-9, max_passes=3000)
    points = found.positions.double().requires_grad_()
    distance = torch.pdist(points)
    upper = torch.triu_indices(80, 80, offset=1)
    stress = (distance - target.double()[upper[0], upper[1]]).square().sum()
    (slope,) = torch.autograd.grad(stress, points)
    # Of the stress itself, where each neuron has 79 pairs.
    assert float(slope.abs().max()) < 0.01 * float(stress.detach()) / 80


def test_the_tolerance_says_when_to_stop() -> None:
    target = dissimilarity(grouped(150))
    start = start_of(target)
    passes = [
        minimize_stress(target, start, tolerance=tolerance).n_passes
        for tolerance in (1e-2, 1e-4, 1e-6)
    ]
    assert passes[0] < passes[1] < passes[2]
    assert minimize_stress(target, start, tolerance=0, max_passes=7).n_passes == 7


def test_one_neuron_has_no_stress() -> None:
    found = minimize_stress(torch.zeros(1, 1), torch.randn(1, 3))
    assert found.stresses == [0.0]
    assert found.positions.tolist() == [[0.0, 0.0, 0.0]]


def test_all_in_one_place_stays_finite() -> None:
    target = dissimilarity(grouped(20))
    found = minimize_stress(target, torch.ones(20, 3))
    assert found.positions.isfinite().all()


def test_opposites_and_copies() -> None:
    rho = torch.ones(30, 30)
    rho[:10, 10:] = rho[10:, :10] = -1
    target = dissimilarity(rho)
    for start in STARTS:
        found = minimize_stress(target, start_of(target, start), tolerance=1e-8)
        assert found.stresses[-1] < 1e-4, start


def test_the_same_bytes_again() -> None:
    target = dissimilarity(grouped(300))
    first = minimize_stress(target, start_of(target))
    second = minimize_stress(target, start_of(target))
    assert torch.equal(first.positions, second.positions)
    assert first.stresses == second.stresses


def test_tiles_do_not_decide_the_map(monkeypatch: pytest.MonkeyPatch) -> None:
    # A map whose stress is exact: where it ends does not hang on when it stopped.
    points = torch.randn(120, 3)
    points *= 0.5 / torch.pdist(points).mean()
    target = torch.cdist(points, points)
    start = start_of(target)
    found = []
    for n_entries in (1 << 20, 1000):
        monkeypatch.setattr(tiled, "_STRIP_ENTRIES", n_entries)
        found.append(minimize_stress(target, start).positions)
    assert torch.allclose(found[0], found[1], atol=1e-6)
    # And after some steps on one that is not.
    target = dissimilarity(grouped(150))
    found = []
    for n_entries in (1 << 20, 1000):
        monkeypatch.setattr(tiled, "_STRIP_ENTRIES", n_entries)
        found.append(minimize_stress(target, start_of(target), tolerance=0, max_passes=15))
    assert found[0].stresses[-1] == pytest.approx(found[1].stresses[-1], rel=1e-6)


def test_side_by_side_is_one_by_one() -> None:
    correlations = [grouped(n, seed) for seed, n in enumerate((40, 90, 1, 40))]
    targets = [Correlations(rho) for rho in correlations]
    starts = [start_of(dissimilarity(rho)) for rho in correlations]
    together = minimize_stresses(targets, starts)
    for target, start, found in zip(targets, starts, together, strict=True):
        alone = minimize_stress(target, start)
        assert torch.equal(alone.positions, found.positions)
        assert alone.n_passes == found.n_passes
    placed = solve_all(correlations, Layout(seed=3))
    for rho, placement in zip(correlations, placed, strict=True):
        assert torch.equal(placement.positions, solve(rho, Layout(seed=3)).positions)


def test_small_maps_take_one_thread_whatever_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    real = smacof.guttman_transforms
    seen = set()

    def transforms(positions: list[Tensor], targets: list[Tensor | Target]) -> list[GuttmanStep]:
        seen.add((len(positions[0]), torch.get_num_threads()))
        return real(positions, targets)

    monkeypatch.setattr(smacof, "guttman_transforms", transforms)
    small, large = (dissimilarity(grouped(n)) for n in (200, 400))
    with in_threads(1):
        alone = minimize_stress(small, start_of(small))
    with in_threads(3):
        found = minimize_stress(small, start_of(small))
        minimize_stress(large, start_of(large), max_passes=3)
        assert torch.get_num_threads() == 3
    assert seen == {(200, 1), (400, 3)}
    assert torch.equal(alone.positions, found.positions)


def test_steps_that_would_raise_stress_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    # Every third pass tells a stress far too high, as rounding might by a little.
    target = dissimilarity(grouped(60))
    seen = 0
    real = smacof.guttman_transforms

    def transforms(positions: list[Tensor], targets: list[Tensor | Target]) -> list[GuttmanStep]:
        nonlocal seen
        seen += 1
        steps = real(positions, targets)
        if seen % 3 == 0:
            return [GuttmanStep(step.moved, 2 * step.raw_stress) for step in steps]
        return steps

    monkeypatch.setattr(smacof, "guttman_transforms", transforms)
    found = minimize_stress(Distances(target), start_of(target))
    assert (np.diff(found.stresses) <= 0).all()
    assert found.stresses[-1] < 0.5 * found.stresses[0]


def test_correlations_that_rounding_left_above_one_are_one() -> None:
    rho = grouped(40)
    rho[3, 4] = rho[4, 3] = 1.0
    above = rho.clone()
    above[3, 4] = above[4, 3] = 1.0005
    above[7, 7] = 0.9995
    expected = solve(rho, Layout()).positions
    assert torch.equal(solve(above, Layout()).positions, expected)
    assert float(above[3, 4]) == pytest.approx(1.0005)


def test_stress_by_the_formula_never_rises_from_one_pass_to_the_next() -> None:
    target = dissimilarity(grouped(250))
    start = start_of(target, "uniform")
    after = [
        stress_figures(minimize_stress(target, start, max_passes=n).positions.double(), target)[0]
        for n in range(1, 60)
    ]
    assert after[-1] < 0.6 * after[0]
    assert all(b <= a * (1 + 1e-6) for a, b in itertools.pairwise(after))


def test_each_step_is_remembered_in_a_place_of_its_own() -> None:
    generator = torch.Generator().manual_seed(0)

    def random() -> Tensor:
        return torch.randn(30, generator=generator, dtype=torch.float64)

    gradient = random()
    memory = smacof._Memory(gradient)
    for i in range(59):
        step, change = random(), random()
        # Every sixth curves down, and is not kept.
        change = change if i % 6 == 5 else step + 0.1 * change
        gradient = gradient + (-change if i % 6 == 5 and float(step @ change) > 0 else change)
        memory.add(step, gradient)
        assert len(set(memory._order)) == len(memory._order)
        assert memory.direction()[1] < 0
    assert len(memory._order) == smacof._MEMORY
