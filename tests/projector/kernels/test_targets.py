"""Targets that are computed from activations, and what a sample of them costs in accuracy."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from projector.errors import UserError
from projector.kernels import Correlations, MatrixFree, guttman_transform, targets
from projector.kernels.targets import evenly_drawn, sample_size, sampling_error, standardize
from projector.solvers import Layout, solve


def activations(n_tokens: int = 150, n_neurons: int = 90, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    factors = torch.randn(n_tokens, 6, generator=generator)
    mixed = factors @ torch.randn(6, n_neurons, generator=generator)
    mixed += torch.randn(n_tokens, n_neurons, generator=generator)
    return torch.nn.functional.gelu(mixed) * 3 + 10


def test_it_is_the_stored_matrix_it_never_stores() -> None:
    seen = activations()
    rows, is_alive = standardize(seen)
    assert is_alive.all()
    rho = torch.corrcoef(seen.double().T)
    positions = torch.randn(90, 3)
    for absolute in (False, True):
        stored = guttman_transform(positions, Correlations(rho.float(), absolute))
        free = guttman_transform(positions, MatrixFree(rows, absolute))
        largest = float(stored.moved.abs().max())
        assert float((stored.moved - free.moved).abs().max()) <= 1e-5 * largest
        assert free.raw_stress == pytest.approx(stored.raw_stress, rel=1e-5)


def test_solving_without_the_matrix_gives_the_same_map() -> None:
    seen = activations()
    rows, _ = standardize(seen)
    by_matrix = solve(torch.corrcoef(seen.T), Layout()).positions
    without = solve(MatrixFree(rows), Layout()).positions
    by_matrix, without = (torch.pdist(x) for x in (by_matrix, without))
    assert torch.allclose(by_matrix, without, atol=1e-2)


def test_half_precision_moves_correlations_little(monkeypatch: pytest.MonkeyPatch) -> None:
    # Widened seven neurons at a time.
    monkeypatch.setattr(targets, "_WIDENED", 7 * 400)
    seen = activations(n_tokens=400)
    rows, _ = standardize(seen, torch.float16)
    assert rows.dtype == torch.float16
    whole = slice(0, 90)
    rho = MatrixFree(rows).correlation(whole, whole)
    assert float((rho - torch.corrcoef(seen.double().T)).abs().max()) < 1e-3


def test_only_smacof_does_without_the_matrix() -> None:
    rows, _ = standardize(activations())
    for layout in (Layout(solver="adamw"), Layout(objective="neighbours")):
        with pytest.raises(UserError, match="90 × 90"):
            solve(MatrixFree(rows), layout)


def test_standardizing_leaves_out_what_has_no_correlation() -> None:
    seen = activations()
    seen[:, 4] = 1.1
    seen[3, 7] = torch.inf
    seen[5, 9] = torch.nan
    rows, is_alive = standardize(seen)
    assert (~is_alive).nonzero()[:, 0].tolist() == [4, 7, 9]
    assert rows.shape == (87, 150)
    assert torch.allclose(rows.mean(dim=1), torch.zeros(87), atol=1e-5)
    assert torch.allclose(rows.square().mean(dim=1), torch.ones(87), atol=1e-5)


def test_the_sampling_error_of_independent_tokens_is_the_one_they_have() -> None:
    # Gaussians: (1 − ρ²)/√T is exact to 1/T.
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(8, 60, generator=generator)
    truth = torch.corrcoef(mixing.T)
    seen = torch.randn(2000, 8, generator=generator) @ mixing
    error = sampling_error(MatrixFree(standardize(seen)[0]))
    upper = torch.triu_indices(60, 60, offset=1)
    covariance = mixing.T @ mixing
    spread = covariance.diagonal().sqrt()
    truth = covariance / spread[:, None] / spread
    actual = (torch.corrcoef(seen.T) - truth)[upper[0], upper[1]].square().mean().sqrt()
    assert error.n_tokens == 2000
    assert error.n_pairs == 60 * 59 // 2
    assert error.if_independent == pytest.approx(float(actual), rel=0.25)
    assert error.measured == pytest.approx(error.if_independent, rel=0.25)


def test_the_sampling_error_counts_what_neighbouring_tokens_share() -> None:
    # Every token four times in a row: a quarter of the tokens it seems to have.
    generator = torch.Generator().manual_seed(1)
    seen = torch.randn(500, 60, generator=generator).repeat_interleave(4, dim=0)
    error = sampling_error(MatrixFree(standardize(seen)[0]))
    assert error.if_independent == pytest.approx(1 / math.sqrt(2000), rel=0.05)
    assert error.measured == pytest.approx(1 / math.sqrt(500), rel=0.15)


def test_sampling_error_of_too_little() -> None:
    one = sampling_error(MatrixFree(torch.randn(1, 50)))
    assert one.n_pairs == 0
    assert math.isnan(one.measured)


def test_samples_fit_and_are_even() -> None:
    assert sample_size(1000, n_bytes=10**9) == 1999
    assert sample_size(1000, n_bytes=10**6) == 500
    assert 500 * 1000 * torch.float16.itemsize <= 10**6
    places = evenly_drawn(1000, 300)
    assert len(places.unique()) == 300
    assert int(places.min()) >= 0
    assert int(places.max()) < 1000
    gaps = places.diff()
    assert int(gaps.max()) - int(gaps.min()) <= 1
    assert evenly_drawn(10, 50).tolist() == list(range(10))
