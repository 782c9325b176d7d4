"""The Triton kernels on the CPU, in Triton's interpreter; ``test_triton.py`` runs this."""

from __future__ import annotations

import pytest
import torch

from projector.layouts.kernels import Correlations, Distances, MatrixFree, triton_forms
from projector.layouts.kernels.triton_forms import transform_matrix_free, transform_stored
from projector.statistics.sampling import standardize
from tests.projector.layouts.kernels.reference import (
    cases,
    check_against_formula,
    distances,
    random_correlation,
)


@pytest.mark.parametrize("name", list(cases()))
def test_it_is_its_formula(name: str) -> None:
    positions, rho = cases()[name]
    target = distances(rho)
    for form in (Distances(target), Correlations(rho)):
        ((moved, raw),) = transform_stored([positions], [form])
        check_against_formula(moved, raw, positions, target)


def test_maps_of_several_sizes_share_a_launch() -> None:
    generator = torch.Generator().manual_seed(0)
    correlations = [random_correlation(n, seed=n) for n in (64, 1, 131, 50)]
    # One that is a part of a wider matrix.
    correlations.append(random_correlation(90)[:40, :40])
    positions = [torch.randn(len(rho), 3, generator=generator) for rho in correlations]
    for absolute in (False, True):
        targets = [Correlations(rho, absolute) for rho in correlations]
        together = transform_stored(positions, targets)
        for points, target, (moved, raw) in zip(positions, targets, together, strict=True):
            rho = target.matrix.abs() if absolute else target.matrix
            check_against_formula(moved, raw, points, distances(rho))
            ((alone, alone_raw),) = transform_stored([points], [target])
            assert torch.allclose(alone, moved, atol=1e-6)
            assert alone_raw == pytest.approx(raw, rel=1e-6)


@pytest.mark.parametrize("n_blocks_wanted", [1, 4, 64])
def test_splitting_the_columns_changes_nothing(
    n_blocks_wanted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triton_forms, "_BLOCKS_WANTED", n_blocks_wanted)
    triton_forms._plan.cache_clear()
    positions, target = torch.randn(300, 2), distances(random_correlation(300))
    ((moved, raw),) = transform_stored([positions], [Distances(target)])
    check_against_formula(moved, raw, positions, target)
    triton_forms._plan.cache_clear()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(
    ("n", "n_tokens", "dim"), [(150, 97, 3), (5, 9, 2), (1, 8, 3), (64, 64, 8)]
)
def test_correlations_of_activations(n: int, n_tokens: int, dim: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(n)
    rows, _ = standardize(torch.randn(n_tokens, n, generator=generator), dtype)
    positions = torch.randn(n, dim, generator=generator)
    for absolute in (False, True):
        free = MatrixFree(rows, absolute)
        # Of the activations as they were rounded.
        target = free.block(slice(0, n), slice(0, n)).clone().fill_diagonal_(0)
        moved, raw = transform_matrix_free(positions, free)
        check_against_formula(moved, raw, positions, target)
