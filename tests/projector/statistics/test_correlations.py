"""Targets that are computed from activations, and what a sample of them costs in accuracy."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from projector.errors import UserError
from projector.layouts.kernels import (
    Correlations,
    Distances,
    MatrixFree,
    guttman_transform,
)
from projector.layouts.solving import Layout, solve
from projector.statistics import correlations as room
from projector.statistics.sampling import standardize


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


def test_a_matrix_and_a_sample_answer_one_question() -> None:
    rows, is_defined = standardize(activations())
    rho = torch.corrcoef(activations().T)
    matrix, sample = room.Matrix(rho), room.Sampled(MatrixFree(rows), is_defined)
    for form, has_matrix in ((matrix, True), (sample, False)):
        target = form.target()
        assert form.has_matrix is target.has_matrix is has_matrix
        assert (target.stored is not None) is has_matrix
    assert Distances(1 - rho).has_matrix


def test_solving_without_the_matrix_gives_the_same_map() -> None:
    seen = activations()
    rows, _ = standardize(seen)
    by_matrix = solve(torch.corrcoef(seen.T), Layout()).positions
    without = solve(MatrixFree(rows), Layout()).positions
    by_matrix, without = (torch.pdist(x) for x in (by_matrix, without))
    assert torch.allclose(by_matrix, without, atol=1e-2)


def test_half_precision_moves_correlations_little(monkeypatch: pytest.MonkeyPatch) -> None:
    # Widened seven neurons at a time.
    monkeypatch.setattr(room, "_WIDENED", 7 * 400)
    seen = activations(n_tokens=400)
    rows, _ = standardize(seen, torch.float16)
    assert rows.dtype == torch.float16
    whole = slice(0, 90)
    rho = MatrixFree(rows).correlation(whole, whole)
    assert float((rho - torch.corrcoef(seen.double().T)).abs().max()) < 1e-3


def test_a_method_that_needs_the_matrix_is_refused_without_it() -> None:
    rows, _ = standardize(activations())
    for layout in (Layout(solver="adamw"), Layout(objective="neighbours", solver="umap")):
        with pytest.raises(UserError, match="90 × 90"):
            solve(MatrixFree(rows), layout)


def test_pairs_are_what_blocks_hold() -> None:
    seen = activations()
    rho = torch.corrcoef(seen.T)
    first, second = torch.triu_indices(90, 90, offset=1)
    for absolute in (False, True):
        wanted = 1 - (rho.abs() if absolute else rho)
        for form in (
            Correlations(rho, absolute),
            MatrixFree(standardize(seen)[0], absolute),
            Distances(wanted),
        ):
            found = form.pairs(first, second)
            assert torch.allclose(found, wanted[first, second], atol=1e-5), type(form)
