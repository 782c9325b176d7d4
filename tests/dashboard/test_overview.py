"""What the landing page computes: maps in two coordinates, and the strongest groups."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dashboard.overview import flatten, strongest_groups
from pruning.poles.poles import Pole, Poles, PoleSettings


def test_a_small_map_keeps_distances_and_fills_the_picture() -> None:
    generator = torch.Generator().manual_seed(0)
    positions = torch.randn(500, 2, generator=generator) * torch.tensor([3.0, 1.0]) + 70
    positions[4] = torch.nan
    found = flatten(positions)
    assert found.neurons.tolist() == [k for k in range(500) if k != 4]
    points = found.points.astype(float)
    assert points[:, 0].min() < 3
    assert points[:, 0].max() > 252
    # One scale for both axes, and the map is in the middle.
    placed = positions[found.neurons]
    for axis in (0, 1):
        slope, _ = np.polyfit(placed[:, axis], points[:, axis], 1)
        assert slope == pytest.approx(np.polyfit(placed[:, 0], points[:, 0], 1)[0], rel=0.05)
        assert abs(points[:, axis].mean() - 127.5) < 20


def test_a_small_map_of_more_dimensions_shows_the_two_widest() -> None:
    generator = torch.Generator().manual_seed(1)
    wide = torch.randn(300, 2, generator=generator) * torch.tensor([5.0, 2.0])
    turned, _ = torch.linalg.qr(torch.randn(4, 4, generator=generator))
    noise = torch.randn(300, 2, generator=generator) * 0.01
    points = flatten(torch.cat([wide, noise], dim=1) @ turned).points.astype(float)
    rho = np.corrcoef(points.T, wide.numpy().T)[:2, 2:]
    assert np.abs(rho).max(axis=1).min() > 0.99


def test_a_small_map_on_a_line_is_drawn_from_left_to_right() -> None:
    points = flatten(torch.linspace(-1, 1, 50)[:, None]).points
    assert (np.diff(points[:, 0].astype(int)) > 0).sum() >= 45
    assert len(np.unique(points[:, 1])) > 20


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_a_map_without_positions_has_no_points(dim: int) -> None:
    assert flatten(torch.full((7, dim), torch.nan)).points.shape == (0, 2)
    assert flatten(torch.zeros(3, dim)).points.shape == (3, 2)


def make_poles(layer: int, *poles: Pole) -> Poles:
    labels = torch.arange(len(poles)).repeat_interleave(3)
    return Poles(
        layer, "mlp_post", PoleSettings("correlation"), labels, torch.ones(len(labels)),
        poles, (), 0.0, None, {},
    )  # fmt: skip


def test_distinct_groups_come_first_and_no_map_takes_all_places() -> None:
    many = [Pole(3, (0,), within_rho=0.9 - k / 100, between_rho=0.0, distinct=True) for k in "0123"
            for k in [int(k)]]  # fmt: skip
    found = {
        (0, "mlp_post"): make_poles(0, *many),
        (1, "mlp_post"): make_poles(1, Pole(3, (0,), within_rho=0.99, distinct=False)),
        (2, "mlp_post"): make_poles(
            2, Pole(3, (0,), within_rho=0.8, between_rho=0.5, distinct=True), Pole(3, (0,))
        ),
    }
    groups = strongest_groups(found, 10)
    assert [(group.layer, group.number) for group in groups[:5]] == [
        (0, 0),
        (0, 1),
        (0, 2),
        (2, 0),
        (1, 0),
    ]
    assert len(strongest_groups(found, 2)) == 2
