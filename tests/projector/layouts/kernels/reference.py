"""The Guttman transform as its formula says, and inputs that are hard on it."""

from __future__ import annotations

import torch
from torch import Tensor

from projector.layouts.costs import dissimilarity


def reference(positions: Tensor, target: Tensor) -> tuple[Tensor, float]:
    """x̄_i = (1/N) Σ_j (δ_ij/d_ij)(x_i − x_j) and Σ_{i<j} (d_ij − δ_ij)², in float64."""
    points, wanted = positions.double(), target.double()
    n = len(points)
    difference = points[:, None] - points[None]
    distance = difference.norm(dim=2)
    pull = torch.where(distance > 0, wanted / distance, 0.0)
    moved = (pull[:, :, None] * difference).sum(dim=1) / n
    return moved, float((distance - wanted).square().sum()) / 2


def random_correlation(n: int, seed: int = 0, n_factors: int = 5) -> Tensor:
    """(n, n) float32, of n mixtures of a few factors."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, n_factors, generator=generator, dtype=torch.float64)
    rows /= rows.norm(dim=1, keepdim=True)
    return (rows @ rows.T).clamp(-1, 1).fill_diagonal_(1).float()


def signs_correlation(n: int) -> Tensor:
    """Every ρ is 1 or −1."""
    sign = torch.where(torch.arange(n) % 3 == 0, -1.0, 1.0)
    return sign[:, None] * sign


def cases() -> dict[str, tuple[Tensor, Tensor]]:
    """Name → positions (N, d) float32 and correlation (N, N) float32."""
    generator = torch.Generator().manual_seed(7)

    def points(n: int, dim: int = 3) -> Tensor:
        return torch.randn(n, dim, generator=generator)

    found = {f"{n} neurons": (points(n), random_correlation(n)) for n in (1, 2, 3, 4, 5, 77, 300)}
    found |= {f"{dim} dimensions": (points(90, dim), random_correlation(90)) for dim in (1, 2, 8)}
    some_coincide = points(200)
    some_coincide[:120] = some_coincide[0]
    found["coincident"] = (some_coincide, random_correlation(200))
    found["all coincident"] = (torch.ones(60, 3), random_correlation(60))
    for power in (2, 3, 4, 6, 8):
        pairs = points(150) / 2
        pairs[1::2] = pairs[::2] + 10.0**-power * points(75)
        found[f"pairs 1e-{power} apart"] = (pairs, random_correlation(150))
    five = points(5)
    five[1] = five[0] + 1e-5
    found["two of five all but coincide"] = (five, random_correlation(5))
    found["ρ = ±1"] = (points(64), signs_correlation(64))
    found["ρ = 1"] = (points(64), torch.ones(64, 64))
    found["tiny"] = (points(120) * 1e-3, random_correlation(120))
    found["huge"] = (points(120) * 1e6, random_correlation(120))
    found["far from the origin"] = (points(120) + 1e3, random_correlation(120))
    outlier = points(120) / 3
    outlier[0] = 1e4
    found["one far away"] = (outlier, random_correlation(120))
    return found


def distances(correlation: Tensor) -> Tensor:
    return dissimilarity(correlation)


def check_against_formula(moved: Tensor, raw: float, positions: Tensor, target: Tensor) -> None:
    """Within 1e-5 of the largest coordinate, and the stress within 1e-5 of itself."""
    expected, expected_raw = reference(positions, target)
    error = float((moved.double().cpu() - expected).abs().max())
    assert error <= 1e-5 * float(expected.abs().max())
    # A stress far below Σδ² is the small difference of large numbers.
    assert abs(raw - expected_raw) <= 1e-5 * expected_raw + 1e-9 * float(target.square().sum())
