"""What every map of particles promises, and what each of them does."""

from __future__ import annotations

import sys
import warnings
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from projector.errors import SettingError, UserError
from projector.residual.particles.records import Owner
from projector.residual.particles.reduction import stress, umap_map
from projector.residual.particles.reduction.joint import reduce
from projector.residual.particles.reduction.registry import REDUCTIONS
from projector.residual.particles.reduction.turning import turn_onto
from projector.residual.particles.settings import ParticleSettings
from tests.projector.residual.particles.clouds import make_cloud, random_walk, with_outlier

QUICK = ("pca", "stress")


def distances(positions: Tensor) -> Tensor:
    flat = positions.reshape(-1, positions.shape[-1]).double()
    return torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist")


def rotation(width: int) -> Tensor:
    return torch.linalg.qr(torch.randn(width, width, dtype=torch.float64)).Q


def stress_of(positions: Tensor, vectors: Tensor) -> float:
    units = torch.nn.functional.normalize(vectors.reshape(-1, vectors.shape[-1]).double(), dim=1)
    wanted = 1 - units @ units.T
    return float((distances(positions) - wanted.fill_diagonal_(0)).square().mean())


@pytest.mark.parametrize("per_layer", [False, True])
@pytest.mark.parametrize("dim", [2, 3])
def test_a_rotation_of_the_input_leaves_all_distances_of_pca(dim: int, per_layer: bool) -> None:
    vectors = random_walk()
    settings = ParticleSettings(dim=dim, per_layer=per_layer)
    plain = reduce(make_cloud(vectors), settings).positions
    turned = reduce(
        make_cloud((vectors.double() @ rotation(vectors.shape[-1])).float()), settings
    ).positions
    torch.testing.assert_close(distances(turned), distances(plain), atol=2e-4, rtol=1e-5)
    assert float(distances(plain).max()) > 1
    assert bool(plain[..., 2].any()) is (dim == 3)


def test_a_rotation_of_the_input_leaves_the_stress_of_stress() -> None:
    vectors = random_walk()
    settings = ParticleSettings(reduction="stress")
    plain = reduce(make_cloud(vectors), settings).positions
    turned_vectors = (vectors.double() @ rotation(vectors.shape[-1])).float()
    turned = reduce(make_cloud(turned_vectors), settings).positions
    before = stress_of(plain, vectors)
    assert stress_of(turned, vectors) == pytest.approx(before, rel=0.01)
    # Of places at random, as far apart as these: the map has found something.
    shuffled = plain.reshape(-1, 3)[torch.randperm(plain[..., 0].numel())].view_as(plain)
    assert before < 0.5 * stress_of(shuffled, vectors)


def test_contributions_to_an_outlier_are_told_of_as_one_tokens() -> None:
    cloud = make_cloud(random_walk())
    n = len(cloud.owners)
    owners = tuple(Owner(0, i // 3, "head", "head") for i in range(n))
    outliers = torch.arange(n) < 3
    (note,) = reduce(replace(cloud, owners=owners, outliers=outliers), ParticleSettings()).notes
    assert "3 particles" in note
    assert "one token" in note
    # Some of a token's alone are no whole token.
    outliers = torch.arange(n) < 2
    (note,) = reduce(replace(cloud, owners=owners, outliers=outliers), ParticleSettings()).notes
    assert "one token" not in note


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("per_layer", [False, True])
def test_the_order_of_particles_changes_nothing(name: str, per_layer: bool) -> None:
    cloud = make_cloud(random_walk())
    order = torch.randperm(len(cloud.owners))
    settings = ParticleSettings(reduction=name, per_layer=per_layer)
    mixed = replace(cloud, vectors=cloud.vectors[:, order])
    found = reduce(mixed, settings).positions
    torch.testing.assert_close(
        found, reduce(cloud, settings).positions[:, order], atol=1e-4, rtol=1e-4
    )


def test_two_prompts_share_one_map() -> None:
    a, b = random_walk(n_particles=20), random_walk(n_particles=14, seed=1)
    cloud = make_cloud(torch.cat([a, b], dim=1))
    both = replace(cloud, owners=tuple(Owner(int(i >= 20), i % 20) for i in range(34)))
    positions = reduce(both, ParticleSettings()).positions
    # One projection of everything: a second copy of a state has the same place.
    again = make_cloud(torch.cat([a, b, a], dim=1))
    copied = reduce(again, ParticleSettings()).positions
    assert torch.equal(copied[:, :20], copied[:, 34:])
    flat = torch.cat([a, b], dim=1).double().flatten(0, 1) - torch.cat(
        [a, b], dim=1
    ).double().flatten(0, 1).mean(dim=0)
    axes = torch.linalg.svd(flat, full_matrices=False).Vh[:3]
    expected = torch.cdist(flat @ axes.T, flat @ axes.T)
    torch.testing.assert_close(distances(positions), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("per_layer", [False, True])
@pytest.mark.parametrize("what", ["duplicates", "constant", "zero", "huge", "tiny"])
def test_states_of_any_kind_have_finite_places(what: str, per_layer: bool, name: str) -> None:
    vectors = random_walk(n_frames=3, n_particles=12)
    if what == "duplicates":
        vectors[:, 6:] = vectors[:, :6]
    if what == "constant":
        vectors = vectors[:1, :1].expand(3, 12, -1).contiguous()
    if what == "zero":
        vectors = torch.zeros_like(vectors)
    if what == "huge":
        vectors = vectors / vectors.abs().max() * 65504
    if what == "tiny":
        vectors = vectors / vectors.abs().max() * 6e-8
    # The same in every frame is one state that doesn't move.
    cloud = make_cloud(vectors + (0 if what != "constant" else torch.arange(3.0)[:, None, None]))
    settings = ParticleSettings(reduction=name, per_layer=per_layer)
    if what == "zero" and not per_layer:
        cloud = make_cloud(vectors[:1])
    positions = reduce(cloud, settings).positions
    assert bool(positions.isfinite().all())
    if what == "duplicates":
        torch.testing.assert_close(positions[:, 6:], positions[:, :6], atol=5e-2, rtol=1e-2)
    if what in ("huge", "tiny") and name == "pca":
        plain = reduce(make_cloud(random_walk(n_frames=3, n_particles=12)), settings).positions
        scale = float(distances(positions).max() / distances(plain).max())
        torch.testing.assert_close(
            distances(positions), distances(plain) * scale, atol=1e-4 * scale, rtol=1e-3
        )


def test_a_linear_map_of_contributions_is_additive() -> None:
    generator = torch.Generator().manual_seed(0)
    parts = torch.randn(24, 16, generator=generator) + 2
    born = torch.arange(24) // 6
    vectors = torch.zeros(4, 24, 16)
    for frame in range(4):
        vectors[frame, born <= frame] = parts[born <= frame]
    cloud = make_cloud(vectors, born=born, kind="head")
    for per_layer in (False, True):
        positions = reduce(cloud, ParticleSettings(per_layer=per_layer)).positions
        assert not bool(positions[vectors.abs().sum(dim=-1) == 0].any())
        # A particle that is the sum of the others: its place is the sum of their places.
        total = torch.cat([vectors, vectors.sum(dim=1, keepdim=True)], dim=1)
        whole = replace(
            make_cloud(total, born=torch.cat([born, torch.zeros(1, dtype=torch.int64)])),
            owners=(*cloud.owners, Owner(0, 0, "sum", "other")),
        )
        found = reduce(whole, ParticleSettings(per_layer=per_layer)).positions
        torch.testing.assert_close(found[:, :-1].sum(dim=1), found[:, -1], atol=1e-4, rtol=1e-4)


def test_what_stays_as_it_is_stays_in_its_place_and_counts_once() -> None:
    vectors = random_walk(n_frames=1, n_particles=12).repeat(4, 1, 1)
    for name in QUICK:
        still = reduce(make_cloud(vectors), ParticleSettings(reduction=name)).positions
        once = reduce(make_cloud(vectors[:1]), ParticleSettings(reduction=name)).positions
        torch.testing.assert_close(still, once.expand_as(still))


def test_a_particle_waits_where_it_will_be_born() -> None:
    born = torch.tensor([2] + [0] * 19)
    vectors = random_walk(n_frames=4, n_particles=20)
    vectors[:2, 0] = 0
    cloud = make_cloud(vectors, born=born)
    for name in QUICK:
        positions = reduce(cloud, ParticleSettings(reduction=name)).positions
        assert torch.equal(positions[0, 0], positions[2, 0])
        assert not torch.equal(positions[3, 0], positions[2, 0])


def test_outlying_tokens_do_not_count_in_the_fit_but_are_placed() -> None:
    cloud = with_outlier(make_cloud(random_walk()), 4)
    rest = torch.arange(30) != 4
    without = reduce(make_cloud(cloud.vectors[:, rest]), ParticleSettings()).positions
    held_out = reduce(cloud, ParticleSettings())
    torch.testing.assert_close(held_out.positions[:, rest], without, atol=1e-5, rtol=1e-5)
    assert bool(held_out.positions[:, 4].isfinite().all())
    assert held_out.notes
    kept = reduce(cloud, ParticleSettings(keep_outliers=True))
    assert not torch.allclose(kept.positions[:, rest], without, atol=0.1)
    assert not kept.notes
    by_stress = reduce(cloud, ParticleSettings(reduction="stress"))
    assert bool(by_stress.positions[:, 4].isnan().all())
    assert bool(by_stress.positions[:, rest].isfinite().all())
    assert by_stress.notes


def test_a_corpus_fits_the_map_in_place_of_the_prompt() -> None:
    generator = torch.Generator().manual_seed(3)
    rows = torch.randn(200, 16, generator=generator) * torch.arange(16, 0, -1)
    cloud = make_cloud(random_walk())
    settings = ParticleSettings(fit="corpus")
    positions = reduce(cloud, settings, rows=rows).positions
    axes = torch.linalg.svd(rows.double() - rows.double().mean(dim=0)).Vh[:3]
    expected = cloud.vectors.double() @ axes.T
    torch.testing.assert_close(distances(positions), distances(expected), atol=1e-3, rtol=1e-4)
    with pytest.raises(SettingError) as refused:
        reduce(cloud, ParticleSettings(reduction="stress"), rows=rows)
    assert refused.value.setting == "fit"
    with pytest.raises(SettingError) as refused:
        reduce(cloud, ParticleSettings(per_layer=True), rows=rows)
    assert refused.value.setting == "fit"


@pytest.mark.parametrize(
    ("n", "settings", "setting", "value"),
    [
        (3, ParticleSettings(), "dim", 3),
        (3, ParticleSettings(reduction="stress"), "dim", 3),
        (2, ParticleSettings(dim=2), "dim", 2),
        (15, ParticleSettings(reduction="umap"), "neighbours", 15),
        (7, ParticleSettings(reduction="umap", neighbours=2), "reduction", "umap"),
        (3, ParticleSettings(per_layer=True), "dim", 3),
    ],
)
def test_too_few_states_are_refused(
    n: int, settings: ParticleSettings, setting: str, value: object
) -> None:
    with pytest.raises(SettingError) as refused:
        reduce(make_cloud(random_walk(n_frames=1, n_particles=n)), settings)
    assert (refused.value.setting, refused.value.value) == (setting, value)


def test_states_that_are_not_finite_are_held_out_and_none_at_all_is_an_error() -> None:
    vectors = random_walk()
    vectors[2, 3, 0] = torch.inf
    positions = reduce(make_cloud(vectors), ParticleSettings()).positions
    is_nan = positions.isnan().any(dim=-1)
    assert is_nan.nonzero().tolist() == [[2, 3]]
    with pytest.raises(UserError):
        reduce(make_cloud(torch.full_like(vectors, torch.nan)), ParticleSettings())


def test_frames_of_their_own_maps_are_turned_onto_each_other_without_scaling() -> None:
    before = random_walk(n_frames=1, n_particles=20, width=3)[0]
    turned = (2 * before.double() @ rotation(3)).float() + 5
    everyone = torch.ones(20, dtype=torch.bool)
    back = turn_onto(turned, before, everyone, is_centred=True)
    middle = before.mean(dim=0)
    torch.testing.assert_close(back, middle + 2 * (before - middle), atol=1e-4, rtol=1e-4)
    # The same states in every frame: each frame's own map comes to the same places.
    drift = torch.arange(4.0)[:, None, None] * torch.ones(16)
    vectors = random_walk(n_frames=1).repeat(4, 1, 1)
    found = reduce(make_cloud(vectors + drift), ParticleSettings(per_layer=True))
    torch.testing.assert_close(
        found.positions, found.positions[:1].expand_as(found.positions), atol=1e-3, rtol=1e-3
    )
    assert found.per_layer
    assert found.notes


def test_stress_computes_cosines_where_a_matrix_would_be_large(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cloud = make_cloud(random_walk())
    settings = ParticleSettings(reduction="stress")
    stored = reduce(cloud, settings).positions
    monkeypatch.setattr(stress, "_MOST_STORED", 10)
    rows = cloud.vectors.flatten(0, 1)
    target = stress.cosine_target(rows)
    assert not target.has_matrix
    units = torch.nn.functional.normalize(rows, dim=1)
    everyone = slice(0, len(rows))
    torch.testing.assert_close(
        target.block(everyone, everyone), 1 - units @ units.T, atol=1e-5, rtol=0
    )
    free = reduce(cloud, settings).positions
    assert stress_of(free, cloud.vectors) == pytest.approx(
        stress_of(stored, cloud.vectors), rel=0.01
    )


class Told:
    """Progress that is written down."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.n = 0

    def begin(self, stage: str, total: int | None, unit: str) -> None:
        self.stages.append(stage)

    def advance(self, n: int) -> None:
        self.n += n

    def end(self) -> None:
        self.stages.append("end")


class FakeUmap:
    """Places rows by their first numbers, and notes how it was asked."""

    made: ClassVar[list[dict[str, Any]]] = []

    def __init__(self, **options: Any) -> None:
        self.bar = options.pop("tqdm_kwds")
        self.made.append(options)
        self.dim = options["n_components"]

    def fit_transform(self, rows: Any) -> Any:
        warnings.warn("n_jobs value 1 overridden to 1 by setting random_state", stacklevel=1)
        torch.set_num_threads(3)
        self.made[-1]["rows"] = rows
        for shown in ("0/200", "17/200", "17/200", "200/200\n"):
            self.bar["file"].write(f"\r{shown}")
        return rows[:, : self.dim].copy()

    def transform(self, rows: Any) -> Any:
        self.bar["file"].write("30/30")
        return rows[:, : self.dim] + 100


def test_umap_is_asked_for_equal_positions_in_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=FakeUmap))
    monkeypatch.setitem(sys.modules, "umap.umap_", SimpleNamespace(NNDescent=object))
    monkeypatch.setattr(umap_map, "_BLOCK", 1000)
    monkeypatch.setattr(FakeUmap, "made", [])
    cloud = with_outlier(make_cloud(random_walk() * 1000), 4)
    settings = ParticleSettings(reduction="umap", neighbours=7, seed=11)
    threads = torch.get_num_threads()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        told = Told()
        found = reduce(cloud, settings, progress=told).positions
        order = torch.randperm(30)
        mixed = replace(cloud, vectors=cloud.vectors[:, order], outliers=cloud.outliers[order])
        again = reduce(mixed, settings).positions
    assert torch.get_num_threads() == threads
    # Loading, neighbours and epochs: each begins, and loading and epochs end.
    assert (len(told.stages), told.n) == (5, 29 * 5 + 200)
    asked, asked_again = FakeUmap.made
    rows, rows_again = asked.pop("rows"), asked_again.pop("rows")
    (near, far, search), (near_again, _, _) = (
        each.pop("precomputed_knn") for each in (asked, asked_again)
    )
    assert asked == asked_again
    assert asked == {
        "n_components": 3,
        "n_neighbors": 7,
        "metric": "cosine",
        "random_state": 11,
        "n_jobs": 1,
    }
    # The same rows in the same order, of length 1, with their nearest by cosine, itself first.
    assert (rows == rows_again).all()
    assert (near == near_again).all()
    assert rows.shape == (29 * 5, 16)
    units = torch.from_numpy(rows).double()
    cosines = (units @ units.T).fill_diagonal_(2)
    expected = cosines.topk(7)
    assert torch.equal(torch.from_numpy(near).long(), expected.indices)
    torch.testing.assert_close(
        torch.from_numpy(far).double(), (1 - expected.values).clamp(min=0), atol=1e-6, rtol=0
    )
    found_for = search.query(-rows[:3], 4)
    assert (found_for[0] == (-cosines).topk(4).indices[:3].numpy()).all()
    # Each row has its own place, and one that was held out is placed afterwards.
    rest = torch.arange(30) != 4
    torch.testing.assert_close(again, found[:, order])
    assert bool((found[:, 4, :] > 50).all())
    lengths = cloud.vectors.norm(dim=-1, keepdim=True)
    firsts = (cloud.vectors / lengths)[:, rest, :3]
    spread, shown = (firsts - firsts.mean(dim=(0, 1))).flatten(), found[:, rest].flatten()
    assert float(torch.corrcoef(torch.stack([spread, shown]))[0, 1]) > 0.9999


@pytest.mark.thorough
def test_umap_is_deterministic_keeps_neighbours_and_places_others() -> None:
    """Three far clusters stay apart, with outliers and in any order; its warnings are kept in."""
    generator = torch.Generator().manual_seed(0)
    centres = 4 * torch.randn(3, 8, generator=generator)
    group = torch.arange(24) % 3
    vectors = centres[group] + torch.randn(2, 24, 8, generator=generator) * 0.3
    cloud = with_outlier(make_cloud(vectors), 23, times=20)
    settings = ParticleSettings(reduction="umap", neighbours=5, dim=2)
    told = Told()
    found = reduce(cloud, settings, progress=told).positions
    assert told.n == 46 + 500
    assert bool(found.isfinite().all())
    assert not bool(found[..., 2].any())
    flat, groups = found.flatten(0, 1), group.repeat(2)
    apart = torch.cdist(flat, flat).fill_diagonal_(torch.inf)
    # The outlier was placed near what points where it does.
    assert torch.equal(groups[apart.argmin(dim=1)], groups)
    order = torch.randperm(24)
    mixed = replace(cloud, vectors=cloud.vectors[:, order], outliers=cloud.outliers[order])
    assert torch.equal(reduce(mixed, settings).positions, found[:, order])


def test_stress_tells_of_its_passes() -> None:
    told = Told()
    reduce(make_cloud(random_walk()), ParticleSettings(reduction="stress"), progress=told)
    assert len(told.stages) == 2
    assert told.stages[-1] == "end"
    assert told.n > 5


def test_every_reduction_says_what_it_is() -> None:
    for name, each in REDUCTIONS.items():
        assert each.name == name
        assert each.words
        assert each.help
        assert each.least_rows(3, 15) >= 4
