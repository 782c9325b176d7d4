"""How far a picture can be trusted, beside where there is nothing to keep."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor

from projector.residual.particles.fidelity import figures
from projector.residual.particles.fidelity.figures import neighbours_kept, random_axes
from projector.residual.particles.fidelity.measuring import measure_fidelity
from projector.residual.particles.fidelity.shuffling import place_shuffled
from projector.residual.particles.reduction.joint import reduce
from projector.residual.particles.settings import ParticleSettings
from tests.projector.residual.particles.clouds import make_cloud, random_walk, with_outlier


def placed(coordinates: Tensor) -> Tensor:
    """Positions (F, P, 3) of the first coordinates."""
    return coordinates[..., :3].contiguous()


def test_a_picture_of_all_there_is_keeps_everything() -> None:
    flat = random_walk(width=3)
    vectors = torch.cat([flat, torch.zeros(5, 30, 13)], dim=-1)
    found, pooled, _ = measure_fidelity(
        make_cloud(vectors), placed(vectors), metric="euclidean", linear=True
    )
    assert pooled == pytest.approx(1)
    for frame in found:
        assert frame.variance_explained == pytest.approx(1)
        assert frame.variance_random == pytest.approx(3 / 16)
        assert frame.neighbours_kept == 1
        # A fifth of the 29 others.
        assert frame.neighbours_k == 5
        assert frame.neighbours_chance == pytest.approx(5 / 29)
        assert frame.reason is None
    assert found[0].displacement_correlation is None
    assert found[0].displacement_n == 0
    assert all(each.displacement_correlation == pytest.approx(1) for each in found[1:])
    assert found[1].displacement_n == 30


def test_random_places_keep_what_chance_keeps() -> None:
    vectors = random_walk(n_particles=300)
    positions = torch.randn(5, 300, 3, generator=torch.Generator().manual_seed(5))
    found, pooled, _ = measure_fidelity(
        make_cloud(vectors), positions, metric="euclidean", linear=False
    )
    assert pooled == pytest.approx(0, abs=0.1)
    for frame in found:
        assert frame.variance_explained is None
        assert frame.variance_random is None
        assert frame.neighbours_kept == pytest.approx(10 / 299, abs=0.02)
        assert frame.neighbours_k == 10


def test_figures_of_a_projection_are_those_of_their_definitions() -> None:
    vectors = random_walk() * torch.arange(16, 0, -1)
    cloud = make_cloud(vectors)
    positions = reduce(cloud, ParticleSettings()).positions
    found, pooled, _ = measure_fidelity(cloud, positions, metric="euclidean", linear=True)
    full = (vectors[1:] - vectors[:-1]).norm(dim=-1)
    shown = (positions[1:] - positions[:-1]).norm(dim=-1)
    assert pooled == pytest.approx(spearmanr(full.flatten(), shown.flatten()).statistic)
    for f in range(1, 5):
        expected = spearmanr(full[f - 1], shown[f - 1]).statistic
        assert found[f].displacement_correlation == pytest.approx(expected)
    rows = vectors.double().flatten(0, 1)
    axes = torch.linalg.svd(rows - rows.mean(dim=0), full_matrices=False).Vh[:3].T
    for f in range(5):
        x = vectors[f].double() - vectors[f].double().mean(dim=0)
        left = x - x @ axes @ axes.T
        expected = float(1 - left.square().sum() / x.square().sum())
        assert found[f].variance_explained == pytest.approx(expected, abs=1e-5)


def test_random_subspaces_keep_on_average_what_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = random_walk(n_frames=2, n_particles=40) * torch.arange(16, 0, -1)
    cloud = make_cloud(vectors)
    measured, _, by_chance = measure_fidelity(
        cloud, vectors[..., :3], metric="euclidean", linear=True
    )
    assert measured[1].displacement_random == by_chance
    monkeypatch.setattr(figures, "_N_DRAWS", 1)
    explained, moved, kept = [], [], []
    for _ in range(60):
        axes = torch.linalg.qr(torch.randn(16, 3)).Q
        found, pooled, _ = measure_fidelity(cloud, vectors @ axes, metric="euclidean", linear=True)
        explained.append(found[0].variance_explained)
        kept.append(found[0].neighbours_kept)
        moved.append(pooled)
    assert sum(explained) / 60 == pytest.approx(measured[0].variance_random, abs=0.05)
    assert sum(moved) / 60 == pytest.approx(by_chance, abs=0.1)
    assert sum(kept) / 60 == pytest.approx(measured[0].neighbours_random, abs=0.04)


def test_ties_are_neighbours_and_count_in_chance() -> None:
    """Nine particles in one place: any of them is near, and the picture shows them there."""
    x = torch.cat([torch.zeros(9, 8), 5 + torch.arange(12.0)[:, None].expand(12, 8)])
    found = neighbours_kept(x, placed(x), metric="euclidean", k=3, axes=random_axes(8, 3, 0))
    assert found.kept == found.random == 1
    # Eight of each of the nine; three of each other, four where two are as far.
    assert found.chance is not None
    assert found.chance > 5 / 20
    mixed = placed(x)[torch.randperm(21, generator=torch.Generator().manual_seed(1))]
    found = neighbours_kept(x, mixed, metric="euclidean", k=3)
    assert found.kept is not None
    assert found.kept < 0.8


def test_what_is_the_same_counts_once() -> None:
    """The same particles twice keep what they keep once: a copy is no neighbour that is found."""
    once = random_walk()
    picture = torch.randn(5, 30, 3, generator=torch.Generator().manual_seed(2))
    expected = measure_fidelity(make_cloud(once), picture, metric="euclidean", linear=True)
    twice, places = torch.cat([once, once], dim=1), torch.cat([picture, picture], dim=1)
    found = measure_fidelity(make_cloud(twice), places, metric="euclidean", linear=True)
    for one, two in zip(expected[0], found[0], strict=True):
        assert two.neighbours_kept == one.neighbours_kept
        assert two.neighbours_random == one.neighbours_random
    # Near copies, as batches round, are left out by name; then moves count once, too.
    near = torch.cat([once, once * (1 + 1e-6)], dim=1)
    out = torch.arange(60) >= 30
    found = measure_fidelity(
        make_cloud(near), places, metric="euclidean", linear=True, left_out=out
    )
    assert found == expected


def test_random_projections_keep_more_than_random_places() -> None:
    """What is spread in few directions is kept by nearly any projection."""
    vectors = random_walk(n_particles=200) * torch.tensor([3.0] * 4 + [0.1] * 12)
    found, _, _ = measure_fidelity(
        make_cloud(vectors), placed(vectors), metric="euclidean", linear=True
    )
    for frame in found:
        assert frame.neighbours_kept is not None
        assert frame.neighbours_random is not None
        assert frame.neighbours_chance is not None
        assert frame.neighbours_kept > frame.neighbours_random + 0.1
        assert frame.neighbours_random > frame.neighbours_chance + 0.1


@pytest.mark.parametrize("per_layer", [False, True])
def test_of_noise_a_map_keeps_what_it_keeps_of_shuffled_noise(*, per_layer: bool) -> None:
    """Six particles without structure: a map of their own keeps most of their variance."""
    noise = torch.randn(4, 6, 64, generator=torch.Generator().manual_seed(4))
    asked = ParticleSettings(per_layer=per_layer)

    def measured(vectors: Tensor) -> float:
        cloud = make_cloud(vectors)
        found, _, _ = measure_fidelity(
            cloud,
            reduce(cloud, asked).positions,
            metric="euclidean",
            linear=True,
            controls=place_shuffled(cloud, asked),
        )
        gains = []
        for frame in found:
            assert frame.variance_explained is not None
            assert frame.variance_shuffled is not None
            assert frame.variance_random is not None
            assert frame.neighbours_shuffled is not None
            assert frame.variance_shuffled > (5 if per_layer else 2) * frame.variance_random
            gains.append(frame.variance_explained - frame.variance_shuffled)
        return sum(gains) / len(gains)

    assert measured(noise) == pytest.approx(0, abs=0.05)
    # Where particles do lie in few dimensions, the map keeps more than of shuffled ones.
    axes = torch.randn(2, 64, generator=torch.Generator().manual_seed(5))
    assert measured(5 * noise[..., :2] @ axes + 0.3 * noise) > 0.1


def test_shuffled_contributions_stay_where_they_are_born() -> None:
    vectors = torch.randn(12, 8) * torch.tensor([1.0] * 6 + [50.0] * 6)[:, None]
    born = torch.tensor([0] * 6 + [1] * 6)
    cloud = replace(make_cloud(torch.zeros(2, 12, 8), born=born, kind="head"), vectors=vectors)
    asked = ParticleSettings(particles="contributions")
    clouds = [each for each, _ in place_shuffled(cloud, asked)]
    assert clouds
    for each in clouds:
        for f in (0, 1):
            own = each.vectors[born == f]
            assert torch.equal(own.sort(dim=0).values, vectors[born == f].sort(dim=0).values)
            assert not torch.equal(own, vectors[born == f])


def test_outliers_the_unborn_and_what_has_no_place_do_not_count() -> None:
    cloud = with_outlier(make_cloud(random_walk()), 3, times=1000)
    positions = placed(cloud.vectors).clone()
    positions[:, 3] = torch.randn(5, 3)
    rest = torch.arange(30) != 3
    found = measure_fidelity(cloud, positions, metric="euclidean", linear=True)
    assert found[0][1].neighbours_kept is not None
    alone = make_cloud(cloud.vectors[:, rest])
    assert found == measure_fidelity(alone, positions[:, rest], metric="euclidean", linear=True)
    positions[:, 5] = torch.nan
    counted = measure_fidelity(cloud, positions, metric="euclidean", linear=True)[0]
    assert [each.displacement_n for each in counted] == [0, 28, 28, 28, 28]
    late = replace(cloud, born=torch.tensor([2] * 10 + [0] * 20))
    counted = measure_fidelity(late, positions, metric="euclidean", linear=True)[0]
    assert [each.displacement_n for each in counted] == [0, 20, 20, 28, 28]


def test_what_is_not_defined_is_none_with_a_reason() -> None:
    still = random_walk(n_frames=1).repeat(3, 1, 1)
    found, pooled, _ = measure_fidelity(
        make_cloud(still), placed(still), metric="cosine", linear=True
    )
    assert pooled is None
    assert found[1].displacement_correlation is None
    assert found[1].displacement_random is None
    assert found[1].reason
    assert found[1].neighbours_kept is not None
    assert found[0].reason is None
    one_place = torch.ones(2, 12, 16)
    found, pooled, _ = measure_fidelity(
        make_cloud(one_place), placed(one_place), metric="euclidean", linear=True
    )
    assert pooled is None
    assert all(each.variance_explained is None and each.reason for each in found)
    pair = random_walk(n_particles=2)
    found, _, _ = measure_fidelity(make_cloud(pair), placed(pair), metric="euclidean", linear=True)
    assert all(each.neighbours_kept is None and each.reason for each in found)
