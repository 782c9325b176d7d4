"""The coordinates that pictures show."""

from __future__ import annotations

import pytest
import torch

from projector.figures.axes import shown_axes


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_up_to_three_coordinates_are_shown_as_they_are(dim: int) -> None:
    positions = torch.randn(9, dim)
    assert torch.equal(shown_axes(positions), positions)


def test_of_more_the_widest_axes_are_shown_and_distances_within_them_kept() -> None:
    flat = torch.randn(40, 3, dtype=torch.float64) * torch.tensor([5.0, 3.0, 1.0])
    turn, _ = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))
    positions = (flat @ turn[:3] + 7).float()
    shown = shown_axes(positions)
    assert shown.shape == (40, 3)
    assert shown.dtype == torch.float32
    # All of them lie in three dimensions, and none is lost.
    apart = [torch.cdist(x.double(), x.double()) for x in (shown, positions)]
    torch.testing.assert_close(*apart, rtol=1e-4, atol=1e-4)
    spread = shown.std(dim=0)
    assert spread[0] > spread[1] > spread[2]
    # The same points in another order look the same.
    order = torch.randperm(40)
    torch.testing.assert_close(shown_axes(positions[order]), shown[order], rtol=1e-4, atol=1e-4)


def test_neurons_without_a_position_stay_without() -> None:
    positions = torch.randn(8, 5)
    positions[3] = torch.nan
    shown = shown_axes(positions)
    assert shown[3].isnan().all()
    assert shown[torch.arange(8) != 3].isfinite().all()
    assert shown_axes(torch.full((4, 5), torch.nan)).shape == (4, 3)
    assert shown_axes(positions[:2]).isfinite().all()
    assert shown_axes(torch.zeros(0, 5)).shape == (0, 3)
