"""Top directions are those of the SVD; what rotations give is drawn as they give it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from projector.residual.circuits.factors import random_axes
from projector.residual.contrast.sharing.directions import (
    angles_between,
    mean_overlap,
    top_directions,
)
from projector.residual.contrast.sharing.rotations import random_spans, rotated_products


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(30, 20), (90, 140), (140, 90)])
def test_top_directions_are_those_of_the_svd(shape: tuple[int, int]) -> None:
    rows = normal(*shape) * torch.linspace(3, 0.5, shape[1])
    found = top_directions(rows, 5)
    expected = torch.linalg.svd(rows.double(), full_matrices=False).Vh[:5].T
    assert found.shape == (shape[1], 5)
    assert torch.allclose((found * expected).sum(dim=0).abs(), torch.ones(5).double(), atol=1e-5)


@pytest.mark.parametrize("n", [50, 100])
def test_directions_that_are_not_there_are_not_given(n: int) -> None:
    flat = normal(n, 3, seed=1) @ normal(3, 80, seed=2)
    assert top_directions(flat, 6).shape == (80, 3)
    assert top_directions(torch.zeros(n, 80), 6).shape == (80, 0)
    # Tiny and huge numbers have directions too.
    for size in (1e-25, 1e25):
        span = top_directions((flat * size).float(), 3)
        assert float(mean_overlap(span, top_directions(flat, 3))) == pytest.approx(1, abs=1e-5)


def test_angles_between_planes() -> None:
    first, second = torch.eye(4)[:, :2], torch.zeros(4, 2)
    second[0, 0] = 1
    second[1, 1] = second[2, 1] = 0.5**0.5
    assert angles_between(first, second).tolist() == pytest.approx([0, 45], abs=0.1)
    assert float(mean_overlap(first, second)) == pytest.approx(0.75)


def test_random_spans_are_orthonormal_and_uniform() -> None:
    spans = random_spans(40, 4, 400, seed=0)
    gram = spans.transpose(1, 2) @ spans
    assert torch.allclose(gram, torch.eye(4).expand_as(gram), atol=1e-5)
    # Of a fixed span, k / H on average; and as much along either sign.
    assert float(mean_overlap(torch.eye(40)[:, :4], spans).mean()) == pytest.approx(0.1, abs=0.01)
    assert spans.mean(dim=0).abs().max() < 5 / (400 * 40) ** 0.5


# Both ways: rotations drawn, and for a wide stream the distribution that they have.
@pytest.mark.parametrize("width", [24, 160])
def test_rotated_products_are_those_of_rotations(width: int) -> None:
    first, second = (normal(12, width, seed=seed) * torch.linspace(2, 0, width) for seed in (1, 2))
    second = second + first
    found = rotated_products(first, second, 4000, seed=0)
    deviation = float((second.T @ first).norm()) / width**0.5
    assert float(found.std()) == pytest.approx(deviation, rel=0.05)
    assert abs(float(found.mean())) < 4 * deviation / 4000**0.5
    generator = torch.Generator().manual_seed(3)
    turned = torch.stack(
        [(first * (second @ random_axes((width, width), generator))).sum() for _ in range(150)]
    )
    assert float(turned.std()) == pytest.approx(float(found.std()), rel=0.25)
    for share in (0.05, 0.95):
        assert float(turned.double().quantile(share)) == pytest.approx(
            float(found.quantile(share)), rel=0.35
        )
    # The model's own value is far beyond.
    assert float((first * second).sum()) > 2 * float(found.max())
