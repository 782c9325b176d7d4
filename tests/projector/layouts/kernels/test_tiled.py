"""The tiled form against the formula, and whatever the tiles."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from projector.layouts.kernels import Correlations, Distances, guttman_transform
from projector.layouts.kernels.tiled import transform_tiled
from tests.projector.layouts.kernels.reference import (
    cases,
    check_against_formula,
    distances,
    random_correlation,
    reference,
)


@pytest.mark.parametrize("name", list(cases()))
def test_it_is_its_formula(name: str) -> None:
    positions, rho = cases()[name]
    target = distances(rho)
    step = guttman_transform(positions, target)
    check_against_formula(step.moved, step.raw_stress, positions, target)
    by_rho = guttman_transform(positions, Correlations(rho))
    check_against_formula(by_rho.moved, by_rho.raw_stress, positions, target)


def test_float64_is_exact() -> None:
    positions, rho = torch.randn(40, 3).double(), random_correlation(40).double()
    positions[3] = positions[4]
    expected, expected_raw = reference(positions, distances(rho))
    step = guttman_transform(positions, distances(rho))
    torch.testing.assert_close(step.moved, expected, rtol=1e-9, atol=1e-12)
    assert step.raw_stress == pytest.approx(expected_raw, rel=1e-9)


def test_absolute_correlations() -> None:
    positions, rho = torch.randn(30, 3), random_correlation(30)
    step = guttman_transform(positions, Correlations(rho, absolute=True))
    check_against_formula(step.moved, step.raw_stress, positions, distances(rho.abs()))


@pytest.mark.parametrize("n_entries", [1, 200, 601, 5_000, 1 << 20])
def test_tiles_change_nothing(n_entries: int) -> None:
    positions, target = torch.randn(201, 3), Distances(distances(random_correlation(201)))
    whole, whole_raw = transform_tiled(positions, target, 1 << 22)
    moved, raw = transform_tiled(positions, target, n_entries)
    assert float((moved - whole).abs().max()) <= 1e-6 * float(whole.abs().max())
    assert raw == pytest.approx(whole_raw, rel=1e-6)


def test_the_diagonal_is_never_used() -> None:
    positions, target = torch.randn(50, 3), distances(random_correlation(50))
    off = target.clone().fill_diagonal_(1e-3)
    step, with_off = guttman_transform(positions, target), guttman_transform(positions, off)
    assert torch.equal(step.moved, with_off.moved)
    assert step.raw_stress == with_off.raw_stress


def test_moving_and_scaling_the_positions_changes_nothing() -> None:
    positions, target = torch.randn(50, 3), distances(random_correlation(50))
    moved = guttman_transform(positions, target).moved
    other = guttman_transform(positions * 3 + 5, target).moved
    assert torch.allclose(moved, other, atol=1e-5)


def test_what_is_read_is_not_changed() -> None:
    positions, rho = torch.randn(30, 3), random_correlation(30)
    target = distances(rho)
    before = positions.clone(), rho.clone(), target.clone()
    guttman_transform(positions, target)
    guttman_transform(positions, Correlations(rho))
    for now, then in zip((positions, rho, target), before, strict=True):
        assert torch.equal(now, then)


def test_long_sums_stay_exact_whatever_the_strips() -> None:
    positions, rho = torch.randn(1500, 3), random_correlation(1500)
    # Misfits of which many are far greater than others, as on a real map.
    positions[::7] *= 3
    expected, expected_raw = reference(positions, distances(rho))
    for n_entries in (1 << 14, 1 << 18, 1 << 22):
        moved, raw = transform_tiled(positions, Correlations(rho), n_entries)
        assert raw == pytest.approx(expected_raw, rel=3e-7), n_entries
        assert float((moved - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


def test_points_on_a_line_are_summed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not row by row a second time, which would take as long as the formula."""
    positions, target = torch.rand(1000, 1), Distances(distances(random_correlation(1000)))
    expected, _ = reference(positions, target.matrix)
    asked: list[slice] = []
    block = Distances.block

    def counted(self: Distances, rows: slice, columns: slice, out: Tensor | None = None) -> Tensor:
        asked.append(rows)
        return block(self, rows, columns, out)

    monkeypatch.setattr(Distances, "block", counted)
    moved, _ = transform_tiled(positions, target)
    assert len(asked) < 60
    assert float((moved - expected).abs().max()) <= 1e-5 * float(expected.abs().max())
