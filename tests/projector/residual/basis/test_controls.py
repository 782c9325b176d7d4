"""Controls: what a share is where there is nothing to find."""

from __future__ import annotations

import pytest
import torch

from projector.residual.basis.controls import (
    orthant_share,
    random_matrix_share,
    random_rank_share,
    share_in_plane,
    share_in_subspace,
)
from projector.residual.circuits.factors import random_axes


def test_a_cloud_of_known_shares() -> None:
    cloud = torch.tensor([[1.0, 1], [2, 3], [-1, 1], [1, -1], [-1, -1]])
    found = orthant_share("s", cloud)
    # Two of five; turned by any angle, a quarter on average.
    assert found.value == pytest.approx(0.4)
    assert found.control == pytest.approx(0.25, abs=0.01)
    in_orthant = orthant_share("s", torch.rand(50, 2) + 0.1)
    assert in_orthant.value == 1
    assert in_orthant.control == pytest.approx(0.25, abs=0.01)
    assert in_orthant.control_high == pytest.approx(1, abs=0.1)
    assert orthant_share("s", torch.zeros(0, 2)).value is None


def test_noise_is_within_its_own_controls_and_a_plane_is_not() -> None:
    generator = torch.Generator().manual_seed(0)
    axes = random_axes((40, 2), generator)
    noise = share_in_plane("s", torch.randn(30, 40, generator=generator), axes)
    assert noise.value is not None
    assert noise.control == pytest.approx(2 / 40, abs=0.01)
    assert noise.value == pytest.approx(2 / 40, abs=0.02)
    flat = share_in_plane("s", torch.randn(30, 2, generator=generator) @ axes.T, axes)
    assert flat.value == pytest.approx(1)
    assert flat.control_high is not None
    assert flat.control_high < 0.2


def test_the_exact_control_of_a_subspace_is_what_draws_give() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(12, generator=generator)
    axes = random_axes((4000, 12, 3), generator)
    drawn = (x @ axes).square().sum(-1) / x.square().sum()
    exact = share_in_subspace("s", x, axes[0])
    low, high = torch.quantile(drawn, torch.tensor([0.05, 0.95])).tolist()
    assert (exact.control_low, exact.control_high) == pytest.approx((low, high), abs=0.02)
    assert exact.control == pytest.approx(float(drawn.mean()), abs=0.01)
    assert exact.value == pytest.approx(float(drawn[0]), abs=1e-5)


@pytest.mark.parametrize(("shape", "k"), [((30, 20), 2), ((20, 30), 2), ((7, 7), 1), ((5, 1), 2)])
def test_a_bidiagonal_matrix_has_the_spectrum_of_a_gaussian_one(
    shape: tuple[int, int], k: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.linalg.svdvals(torch.randn(200, *shape, generator=generator)).square()
    drawn = values[:, :k].sum(1) / values.sum(1)
    found = random_matrix_share(*shape, k)
    assert float(found.mean()) == pytest.approx(float(drawn.mean()), rel=0.06)


def test_products_of_random_matrices() -> None:
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(200, 9, 3, generator=generator)
    right = torch.randn(200, 3, 7, generator=generator)
    values = torch.linalg.svdvals(left @ right).square()
    drawn = values[:, :2].sum(1) / values.sum(1)
    assert float(random_rank_share(9, 3, 7).mean()) == pytest.approx(float(drawn.mean()), rel=0.06)
