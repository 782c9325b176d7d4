"""The nearest particles in full space."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from projector.residual.particles import near
from projector.residual.particles.near import nearest
from tests.projector.residual.particles.clouds import make_cloud, random_walk


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_they_are_those_of_a_plain_search(
    metric: near.Metric, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(near, "_BLOCK", 100)
    vectors = random_walk() + 3
    neighbours, distances = nearest(make_cloud(vectors), 4, metric)
    whole = vectors.double()
    apart = torch.cdist(whole, whole, compute_mode="donot_use_mm_for_euclid_dist")
    if metric == "cosine":
        apart = 1 - torch.cosine_similarity(whole[:, :, None], whole[:, None], dim=-1)
    apart.diagonal(dim1=1, dim2=2).fill_(torch.inf)
    expected, places = apart.topk(4, largest=False)
    assert torch.equal(neighbours.long(), places)
    assert neighbours.dtype == torch.int32
    torch.testing.assert_close(distances, expected.float(), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("is_still", [False, True])
def test_contributions_find_what_joins_them(*, is_still: bool) -> None:
    """Written once, they stay: the neighbours are those of a search among all that are there."""
    generator = torch.Generator().manual_seed(0)
    parts = torch.randn(20, 8, generator=generator)
    born = torch.arange(20) // 4
    vectors = torch.zeros(6, 20, 8)
    for frame in range(6):
        vectors[frame, born <= frame] = parts[born <= frame]
    cloud = make_cloud(vectors, born=born, kind="head")
    if is_still:
        cloud = replace(cloud, vectors=parts)
    neighbours, distances = nearest(cloud, 6, "euclidean")
    for frame in range(6):
        n = int((born <= frame).sum())
        apart = torch.cdist(parts[:n].double(), parts[:n].double()).fill_diagonal_(torch.inf)
        k = min(6, n - 1)
        expected = apart.topk(k, largest=False)
        assert torch.equal(neighbours[frame, :n, :k].long(), expected.indices)
        torch.testing.assert_close(
            distances[frame, :n, :k], expected.values.float(), atol=1e-5, rtol=1e-5
        )
        assert bool((neighbours[frame, :n, k:] == -1).all())
        assert bool((neighbours[frame, n:] == -1).all())
        assert bool(distances[frame, n:].isnan().all())


def test_equal_states_are_at_distance_0_however_long_they_are() -> None:
    vectors = random_walk(n_frames=2, n_particles=6) * 1e4
    vectors[:, 5] = vectors[:, 0]
    neighbours, distances = nearest(make_cloud(vectors), 1, "euclidean")
    assert neighbours[:, [0, 5], 0].tolist() == [[5, 0], [5, 0]]
    assert not bool(distances[:, [0, 5]].any())


def test_none_are_asked_for_and_none_are_there() -> None:
    alone = make_cloud(random_walk(n_particles=1))
    assert nearest(alone, 0, "cosine")[0].shape == (5, 1, 0)
    neighbours, distances = nearest(alone, 3, "cosine")
    assert bool((neighbours == -1).all())
    assert bool(distances.isnan().all())
    vectors = random_walk(n_particles=4)
    vectors[:, 2] = torch.nan
    neighbours, _ = nearest(make_cloud(vectors), 3, "euclidean")
    assert not bool((neighbours == 2).any())
    assert bool((neighbours[:, 2] == -1).all())
