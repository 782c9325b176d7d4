"""What t-SNE promises: its gradient, its affinities, and the neighbours that it keeps."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from projector.layouts.costs import dissimilarity, nearest_by_target, nearest_on_map, overlap_of
from projector.layouts.settings import Layout
from projector.layouts.solvers import tsne
from projector.layouts.solvers.tsne import affinities, embed
from projector.layouts.solving import place, solve_all
from projector.layouts.start import classical_start
from projector.processor import in_threads
from projector.statistics.correlations import MatrixFree

N_GROUPS, N_EACH = 12, 10


def rows_of(seed: int = 0) -> Tensor:
    """Activations (tokens, neurons) of neurons in groups."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(800, N_GROUPS, generator=generator).repeat_interleave(N_EACH, dim=1)
    return rows + torch.randn(rows.shape, generator=generator)


@pytest.fixture(scope="module")
def rho() -> Tensor:
    return torch.corrcoef(rows_of().T)


def dense(rho: Tensor, n_near: int = 15, perplexity: float = tsne.PERPLEXITY) -> Tensor:
    rows, columns, values = affinities(dissimilarity(rho.clone()), n_near, perplexity)
    found = torch.zeros_like(rho)
    found[rows, columns] = values
    return found


def test_affinities_are_symmetric_and_of_the_perplexity_that_was_asked_for(rho: Tensor) -> None:
    found = dense(rho)
    assert float(found.sum()) == pytest.approx(1, abs=1e-5)
    assert torch.equal(found, found.T)
    assert (found.diagonal() == 0).all()
    square = dissimilarity(rho.clone()).double().square().fill_diagonal_(math.inf)
    near = square.topk(15, dim=1, largest=False).values
    p = tsne._calibrated(near, tsne.PERPLEXITY)
    found = (-(p * p.log()).sum(dim=1)).exp()
    assert torch.allclose(found, torch.tensor(tsne.PERPLEXITY).double(), atol=1e-6)
    # Nearer ones have more.
    assert (p[:, :-1] >= p[:, 1:]).all()


def test_forces_are_the_gradient_of_the_divergence(rho: Tensor) -> None:
    p = dense(rho)
    points = torch.randn(len(rho), 2, generator=torch.Generator().manual_seed(1))
    variable = points.double().requires_grad_()
    weights = 1 / (1 + torch.cdist(variable, variable).square())
    weights = weights * (1 - torch.eye(len(rho)))
    q = weights / weights.sum()
    is_pair = p > 0
    (p[is_pair] * (p[is_pair] / q[is_pair]).log()).sum().backward()
    attraction = tsne._Attraction(*affinities(dissimilarity(rho.clone()), 15, tsne.PERPLEXITY))
    repulsion, total = tsne._repulsion(points)
    found = 4 * (attraction(points) - repulsion / total)
    assert variable.grad is not None
    assert torch.allclose(found.double(), variable.grad, atol=1e-6)


def test_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    points = 9 * torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    whole, total = tsne._repulsion(points)
    monkeypatch.setattr(tsne, "_CACHE_ENTRIES", 7 * 50)
    force, again = tsne._repulsion(points)
    assert torch.allclose(force, whole, rtol=1e-4, atol=1e-5)
    assert float(again) == pytest.approx(float(total), rel=1e-6)


@pytest.mark.parametrize("dim", [1, 2, 3, 5])
def test_groups_stay_together_in_any_dimension(dim: int, rho: Tensor) -> None:
    found = place(rho, objective="neighbours", dim=dim)
    assert found.shape == (len(rho), dim)
    assert found.mean(dim=0).abs().max() < 1e-3
    groups = torch.arange(len(rho)) // N_EACH
    near = nearest_on_map(found, k=5)
    assert (groups[near] == groups[:, None]).float().mean() > 0.9


def test_a_seed_decides_all_and_the_number_of_threads_nothing(rho: Tensor) -> None:
    layout = Layout(objective="neighbours", dim=2)
    whole = [rho, torch.corrcoef(rows_of(1).T), torch.corrcoef(rows_of(2).T)]
    with in_threads(1):
        alone = [solve_all([each], layout)[0].positions for each in whole]
    with in_threads(2):
        together = [each.positions for each in solve_all(whole, layout)]
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))
    assert not torch.equal(alone[0], place(rho, objective="neighbours", dim=2, seed=1))


@pytest.mark.parametrize("n", range(1, 6))
def test_few_neurons_have_places_of_their_own(n: int) -> None:
    rho = torch.corrcoef(torch.randn(50, 6, generator=torch.Generator().manual_seed(0)).T)
    found = place(rho[:n, :n], objective="neighbours", dim=2)
    assert found.shape == (n, 2)
    assert found.isfinite().all()
    assert n < 2 or torch.pdist(found).min() > 0


def test_equal_neurons_are_parted_and_stay_near(rho: Tensor) -> None:
    twice = rho.repeat_interleave(2, dim=0).repeat_interleave(2, dim=1)
    found = place(twice, objective="neighbours", dim=2)
    near = nearest_on_map(found, k=1)[:, 0]
    assert found.isfinite().all()
    assert (near == (torch.arange(len(twice)) ^ 1)).float().mean() > 0.9


def test_all_alike_or_unrelated_neurons_have_finite_places() -> None:
    for rho in (torch.ones(30, 30), torch.eye(30)):
        found = place(rho, objective="neighbours", dim=2)
        assert found.isfinite().all()
        assert torch.pdist(found).max() > 0


def test_a_sample_of_activations_takes_the_place_of_a_matrix(rho: Tensor) -> None:
    rows = rows_of().T
    rows = rows - rows.mean(dim=1, keepdim=True)
    sample = MatrixFree(rows / rows.std(dim=1, keepdim=True, correction=0))
    (found,) = solve_all([sample], Layout(objective="neighbours", dim=2))
    near = nearest_by_target(dissimilarity(rho.clone()))
    kept = overlap_of(nearest_on_map(found.positions), near)
    exact = overlap_of(nearest_on_map(place(rho, objective="neighbours", dim=2)), near)
    assert kept == pytest.approx(exact, abs=0.1)


def test_more_steps_come_nearer() -> None:
    rho = torch.corrcoef(rows_of().T)
    target = dissimilarity(rho.clone())
    start = classical_start(target, 2, torch.Generator().manual_seed(0))
    p = dense(rho, tsne.N_NEAR, tsne.PERPLEXITY).double()

    def divergence(n_steps: int) -> float:
        generator = torch.Generator().manual_seed(0)
        points = embed(target, start, generator, n_steps=n_steps).double()
        weights = (1 / (1 + torch.cdist(points, points).square())).fill_diagonal_(0)
        q = weights / weights.sum()
        return float((p[p > 0] * (p[p > 0] / q[p > 0]).log()).sum())

    few, usual = divergence(30), divergence(tsne.N_STEPS)
    assert usual < 0.8 * few
