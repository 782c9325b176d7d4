"""Poles: planted groups are found, whatever the order of the neurons, and kept in a file."""

from __future__ import annotations

import json
from collections import namedtuple
from dataclasses import replace
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from hdbscan import HDBSCAN
from hdbscan.validity import validity_index
from torch import Tensor

from projector.layouts.solving import Layout
from projector.projection.facts import Facts, LayoutSettings, MapFacts, ModelFacts
from projector.projection.faithfulness import PlacementFigures, measure
from projector.projection.projection import PlacedLayout, Projection
from projector.sites import map_name
from pruning.poles.finding import choose_maps, condensed_tree, find_poles
from pruning.poles.poles import MAP_POLES, SPACES, Pole, Poles, PoleSettings
from pruning.poles.validity import measure_validity
from tests.refused import refused, refused_naming

SITE = "mlp_post"
NAME = map_name(0, SITE)
SETTINGS = PoleSettings("positions", 8, None, "eom")


def project(
    positions: Tensor,
    covariance: Tensor | None = None,
    correlation: Tensor | None = None,
    layers: int = 1,
) -> Projection:
    """A projection of equal layers, as if it had been fitted."""
    dim = positions.shape[1]
    undefined = (~positions.isfinite().all(dim=1)).nonzero()[:, 0].tolist()
    layout = Layout(dim=dim)
    figures = PlacementFigures(measure(positions, None, layout))
    names = [map_name(layer, SITE) for layer in range(layers)]
    statistics = {}
    for name in names:
        if covariance is not None:
            statistics[f"{name}.covariance"] = covariance.clone()
        if correlation is not None:
            statistics[f"{name}.correlation"] = correlation.clone()
    facts = Facts(
        model=ModelFacts("made up", "0" * 64, "float32", is_causal=True, n_layers=layers),
        corpus=None,
        sites=(SITE,),
        layers=tuple(range(layers)),
        left_out_sites={},
        correlation="pooled" if correlation is None else "per-sequence",
        maps=dict.fromkeys(names, MapFacts(positions.shape[0], None, tuple(undefined))),
        versions={},
    )
    placed = PlacedLayout(
        settings=LayoutSettings("stress", "smacof", "smacof", dim, absolute=False),
        figures=dict.fromkeys(names, figures),
        versions={},
        positions={name: positions.clone() for name in names},
    )
    return Projection(facts, {layout.name: placed}, statistics)


def planted_map(n_noise: int = 15) -> tuple[Tensor, Tensor]:
    """Three dense groups of 40, 30 and 20 far apart, and noise; positions and groups, shuffled."""
    generator = torch.Generator().manual_seed(1)
    centres = torch.tensor([[0.0, 0, 0], [4, 0, 0], [0, 4, 0]])
    groups = torch.tensor([0] * 40 + [1] * 30 + [2] * 20)
    points = centres[groups] + 0.1 * torch.randn(90, 3, generator=generator)
    # Ever farther out, so that no two of them are a group.
    away = torch.nn.functional.normalize(torch.randn(n_noise, 3, generator=generator))
    noise = 10 * 1.5 ** torch.arange(n_noise)[:, None] * away
    order = torch.randperm(90 + n_noise, generator=generator)
    labels = torch.cat([groups, torch.full((n_noise,), -1)])
    return torch.cat([points, noise])[order], labels[order]


def planted_activations(n_tokens: int = 3000) -> tuple[Tensor, Tensor]:
    """Activations that follow +a, −a and b, 20, 15 and 12 neurons, and 20 that follow nothing."""
    generator = torch.Generator().manual_seed(2)
    a, b = torch.randn(2, n_tokens, generator=generator)
    kinds = torch.tensor([0] * 20 + [1] * 15 + [2] * 12 + [-1] * 20)
    kinds = kinds[torch.randperm(67, generator=generator)]
    signal = torch.stack([a, -a, b, torch.zeros(n_tokens)])[kinds]
    loudness = torch.rand(67, 1, generator=generator) + 0.5
    share = torch.where(kinds[:, None] < 0, 1.0, 0.4)
    noise = torch.randn(67, n_tokens, generator=generator)
    return (loudness * (signal + share * noise)).T, kinds


def numbers_of(poles: Poles, kinds: Tensor) -> Tensor:
    """The number that the pole of each planted group has, by its first neuron."""
    return torch.stack([poles.labels[kinds == kind][0] for kind in range(int(kinds.max()) + 1)])


def covariance_of(rows: Tensor) -> Tensor:
    return torch.cov(rows.T.double(), correction=0).float()


@pytest.fixture(scope="module")
def correlated() -> tuple[Projection, Tensor]:
    """Positions that tell nothing, and the planted correlations."""
    rows, kinds = planted_activations()
    positions = torch.randn(67, 3, generator=torch.Generator().manual_seed(3))
    return project(positions, covariance_of(rows)), kinds


# what is found


def test_planted_groups_of_a_map_are_its_poles_largest_first() -> None:
    positions, groups = planted_map()
    poles = find_poles(project(positions), 0, settings=SETTINGS)
    assert torch.equal(poles.labels, groups)
    assert poles.labels.dtype == torch.int64
    assert poles.sizes == (40, 30, 20)
    assert poles.noise_share == pytest.approx(15 / 105)
    assert poles.strengths.dtype == torch.float32
    assert bool(((poles.strengths > 0) == (groups >= 0)).all())
    assert float(poles.strengths.max()) == 1


@pytest.mark.parametrize("space", ["correlation", "abs-correlation"])
def test_planted_groups_of_activations_are_poles_of_their_space(
    correlated: tuple[Projection, Tensor], space: str
) -> None:
    projection, kinds = correlated
    planted = kinds >= 0
    poles = find_poles(projection, 0, settings=replace(SETTINGS, space=space))
    # Of those that follow nothing, a few lie by chance nearer to one group than two groups do.
    assert int((poles.labels[~planted] < 0).sum()) >= 15
    if space == "correlation":
        numbers = numbers_of(poles, kinds)
        assert torch.equal(poles.labels[planted], numbers[kinds[planted]])
        a, minus_a = numbers[:2].tolist()
        assert poles.opposites[a] == minus_a
        assert poles.opposites[minus_a] == a
        opposed = poles.poles[a].opposite_rho
        assert opposed is not None
        assert opposed < -0.8
    else:
        # What fires against a, fires with it: one pole.
        expected = torch.tensor([0, 0, 1])[kinds[planted]]
        assert torch.equal(poles.labels[planted], expected)


def test_figures_equal_those_worked_out_pair_by_pair(
    correlated: tuple[Projection, Tensor],
) -> None:
    projection, _ = correlated
    poles = find_poles(projection, 0, settings=replace(SETTINGS, space="correlation"))
    rho = projection.correlation(0, SITE).double().numpy()
    members = [(poles.labels == k).nonzero()[:, 0].tolist() for k in range(3)]

    def mean(a: list[int], b: list[int], absolute: bool = False) -> float:
        values = [rho[i, j] for i in a for j in b if i != j]
        return float(np.mean(np.abs(values) if absolute else values))

    for k, pole in enumerate(poles.poles):
        others = [m for m in range(3) if m != k]
        to = [mean(members[k], members[m]) for m in others]
        to_absolute = [mean(members[k], members[m], True) for m in others]
        assert pole.within_rho == pytest.approx(mean(members[k], members[k]))
        assert pole.within_absolute_rho == pytest.approx(mean(members[k], members[k], True))
        assert pole.between_rho == pytest.approx(max(to))
        assert pole.between_absolute_rho == pytest.approx(max(to_absolute))
        if min(to) < 0:
            assert pole.opposite == others[int(np.argmin(to))]
            assert pole.opposite_rho == pytest.approx(min(to))
        else:
            assert pole.opposite is None
            assert pole.opposite_rho is None


@pytest.mark.parametrize("space", SPACES)
def test_poles_are_numbered_by_how_far_they_stand_apart(
    correlated: tuple[Projection, Tensor], space: str
) -> None:
    projection, _ = correlated
    settings = PoleSettings(space, 3, None, "leaf")
    poles = find_poles(projection, 0, settings=settings)
    margins = [poles.margin(k) for k in range(len(poles.poles))]
    assert len(margins) > 1
    assert margins == sorted(margins, key=lambda margin: -(margin or 0))
    if space == "positions":
        assert list(poles.sizes) != sorted(poles.sizes, reverse=True)
    for k, pole in enumerate(poles.poles):
        assert int((poles.labels == k).sum()) == pole.size
        members = set((poles.labels == k).nonzero()[:, 0].tolist())
        assert set(pole.exemplars) <= members
    # The tree names the same poles.
    tree = condensed_tree(projection, 0, SITE, settings)
    sizes = {branch.pole: branch.n_neurons for branch in tree.branches if branch.pole is not None}
    assert sizes.keys() == set(range(len(poles.poles)))
    if space != "positions":
        assert all(sizes[k] >= pole.size for k, pole in enumerate(poles.poles))


@pytest.mark.parametrize("absolute", [False, True])
def test_the_medoid_is_the_member_nearest_to_all_others(
    correlated: tuple[Projection, Tensor], absolute: bool
) -> None:
    projection, _ = correlated
    space = "abs-correlation" if absolute else "correlation"
    poles = find_poles(projection, 0, settings=replace(SETTINGS, space=space))
    rho = projection.correlation(0, SITE).double()
    distance = 1 - (rho.abs() if absolute else rho)
    for k, exemplars in enumerate(poles.exemplars):
        members = (poles.labels == k).nonzero()[:, 0].tolist()
        sums = {i: sum(float(distance[i, j]) for j in members) for i in members}
        assert exemplars == (min(sums, key=lambda i: sums[i]),)


def test_exemplars_of_a_map_are_those_of_hdbscan_most_central_first() -> None:
    positions, _ = planted_map()
    settings = MAP_POLES
    poles = find_poles(project(positions), 0, settings=settings)
    order = np.lexsort(positions.numpy().T[::-1])
    fitted = HDBSCAN(min_cluster_size=3, approx_min_span_tree=False).fit(
        positions.double().numpy()[order]
    )
    theirs = {frozenset(map(tuple, points.tolist())) for points in fitted.exemplars_}
    ours = {frozenset(tuple(positions[i].tolist()) for i in chosen) for chosen in poles.exemplars}
    assert ours == theirs
    for k, chosen in enumerate(poles.exemplars):
        members = positions[poles.labels == k].double()
        assert set(poles.labels[list(chosen)].tolist()) == {k}
        distance = (positions[list(chosen)].double() - members.mean(dim=0)).norm(dim=1)
        assert distance.tolist() == sorted(distance.tolist())
    assert max(len(chosen) for chosen in poles.exemplars) > 1


@pytest.mark.parametrize("space", SPACES)
def test_poles_do_not_depend_on_the_order_of_neurons(space: str) -> None:
    generator = torch.Generator().manual_seed(4)
    # No clear groups: here which of two equal distances comes first decides.
    rows = torch.randn(400, 12, generator=generator) @ torch.randn(12, 300, generator=generator)
    covariance = covariance_of(rows + torch.randn(400, 300, generator=generator))
    positions = torch.randn(300, 3, generator=generator)
    covariance[17] = covariance[:, 17] = 0
    positions[17] = torch.nan
    settings = PoleSettings(space=space, selection="leaf")
    poles = find_poles(project(positions, covariance), 0, settings=settings)
    assert len(poles.poles) > 2
    for seed in range(3):
        order = torch.randperm(300, generator=torch.Generator().manual_seed(seed))
        shuffled = project(positions[order], covariance[order][:, order])
        again = find_poles(shuffled, 0, settings=settings)
        assert torch.equal(again.labels, poles.labels[order])
        assert torch.equal(again.strengths, poles.strengths[order])
        named = tuple(tuple(order[list(chosen)].tolist()) for chosen in again.exemplars)
        assert named == poles.exemplars
        assert [p.opposite for p in again.poles] == [p.opposite for p in poles.poles]
        assert again.validity == poles.validity
        assert order[list(again.undefined)].tolist() == [17]


def test_poles_of_correlations_do_not_depend_on_the_map() -> None:
    generator = torch.Generator().manual_seed(5)
    rows = torch.randn(300, 6, generator=generator) @ torch.randn(6, 200, generator=generator)
    covariance = covariance_of(rows + torch.randn(300, 200, generator=generator))
    settings = PoleSettings(space="correlation")
    first, second = (
        find_poles(
            project(torch.randn(200, 3, generator=generator), covariance), 0, settings=settings
        )
        for _ in range(2)
    )
    assert torch.equal(first.labels, second.labels)
    assert len(first.poles) > 2


def test_dead_neurons_are_named_and_are_not_noise() -> None:
    positions, groups = planted_map()
    dead = [5, 77]
    positions[dead] = torch.nan
    groups[dead] = -1
    poles = find_poles(project(positions), 0, settings=SETTINGS)
    assert torch.equal(poles.labels, groups)
    assert poles.undefined == (5, 77)
    assert poles.strengths[dead].tolist() == [0, 0]
    n_noise = int((groups < 0).sum()) - 2
    assert poles.noise_share == pytest.approx(n_noise / 103)


def test_a_neuron_without_correlation_counts_in_no_mean(
    correlated: tuple[Projection, Tensor],
) -> None:
    projection, kinds = correlated
    covariance = projection.covariance(0, SITE).clone()
    dead = int((kinds == 0).nonzero()[0, 0])
    covariance[dead] = covariance[:, dead] = 0
    # It has its place on the map all the same.
    centres = torch.tensor([[0.0, 0, 0], [5, 0, 0], [0, 5, 0], [50, 50, 50]])
    scale = torch.where(kinds[:, None] < 0, 40.0, 0.1)
    positions = centres[kinds] + scale * projection.positions(0, SITE)
    poles = find_poles(project(positions, covariance), 0, settings=SETTINGS)
    assert torch.equal(poles.labels, kinds)
    rho = projection.correlation(0, SITE).double()
    members = [i for i in (kinds == 0).nonzero()[:, 0].tolist() if i != dead]
    block = rho[members][:, members]
    expected = (block.sum() - len(members)) / (len(members) * (len(members) - 1))
    assert poles.poles[0].within_rho == pytest.approx(float(expected))
    by_rho = find_poles(
        project(positions, covariance), 0, settings=replace(SETTINGS, space="correlation")
    )
    assert by_rho.undefined == (dead,)
    assert int(by_rho.labels[dead]) == -1


def test_without_statistics_a_map_has_poles_and_says_what_is_missing() -> None:
    positions, groups = planted_map()
    poles = find_poles(project(positions), 0, settings=SETTINGS)
    assert torch.equal(poles.labels, groups)
    assert poles.poles[0] == Pole(40, poles.exemplars[0])
    assert list(poles.reasons) == ["rho"]
    with refused("keep_statistics", False, "`projector fit`"):
        find_poles(project(positions), 0, settings=replace(SETTINGS, space="correlation"))


def test_correlations_per_sequence_are_used_where_they_were_kept(
    correlated: tuple[Projection, Tensor],
) -> None:
    projection, kinds = correlated
    own = project(
        projection.positions(0, SITE),
        torch.eye(67),
        projection.correlation(0, SITE),
    )
    settings = replace(SETTINGS, space="correlation")
    poles = find_poles(own, 0, settings=settings)
    planted = kinds >= 0
    assert torch.equal(poles.labels[planted], numbers_of(poles, kinds)[kinds[planted]])
    assert poles.poles == find_poles(projection, 0, settings=settings).poles


@pytest.mark.parametrize("n_neurons", [0, 1, 2, 5])
@pytest.mark.parametrize("space", SPACES)
def test_a_layer_too_small_for_poles_is_all_noise(n_neurons: int, space: str) -> None:
    positions = torch.randn(n_neurons, 2)
    settings = PoleSettings(space=space, min_cluster_size=4)
    poles = find_poles(project(positions, torch.eye(n_neurons)), 0, settings=settings)
    assert poles.poles == poles.exemplars == poles.opposites == ()
    assert poles.labels.tolist() == [-1] * n_neurons
    assert poles.noise_share == (1 if n_neurons else None)
    assert poles.validity is None
    assert set(poles.reasons) == {"validity"} | (set() if n_neurons else {"noise_share"})


def test_neurons_all_dead() -> None:
    nothing = torch.full((9, 3), torch.nan)
    poles = find_poles(project(nothing, torch.zeros(9, 9)), 0)
    assert poles.noise_share is None
    assert poles.undefined == tuple(range(9))


def test_a_linear_map_has_poles_too() -> None:
    positions = torch.cat([torch.linspace(0, 1, 20), torch.linspace(5, 6, 15)])[:, None]
    poles = find_poles(project(positions), 0, settings=SETTINGS)
    assert poles.sizes == (20, 15)


@pytest.mark.parametrize("dim", [1, 3])
def test_neurons_that_coincide_are_poles_and_never_a_crash(
    dim: int, recwarn: pytest.WarningsRecorder
) -> None:
    piles = torch.tensor([0.0] * 12 + [1.0] * 10)[:, None].expand(22, dim).contiguous()
    poles = find_poles(project(piles), 0, settings=replace(SETTINGS, min_cluster_size=5))
    assert poles.sizes == (12, 10)
    assert poles.strengths.tolist() == [1.0] * 22
    json.dumps(poles.as_dict(), allow_nan=False)
    one = find_poles(
        project(torch.ones(22, dim)), 0, settings=replace(SETTINGS, min_cluster_size=5)
    )
    json.dumps(one.as_dict(), allow_nan=False)
    assert not [w for w in recwarn if issubclass(w.category, RuntimeWarning)]


def test_more_samples_than_neurons_is_as_many_as_there_are() -> None:
    positions, _ = planted_map()
    poles = find_poles(project(positions), 0, settings=replace(SETTINGS, min_samples=10**6))
    assert poles.labels.shape == (105,)


def test_epsilon_joins_and_leaf_divides() -> None:
    generator = torch.Generator().manual_seed(6)
    centres = torch.tensor([[31.0, 0], [1, 0], [30, 0], [0, 0]])
    points = centres.repeat_interleave(20, dim=0) + 0.05 * torch.randn(80, 2, generator=generator)
    base = SETTINGS
    leaf = find_poles(project(points), 0, settings=replace(base, selection="leaf"))
    joined = find_poles(project(points), 0, settings=replace(base, selection="leaf", epsilon=5.0))
    # Of equal size: by place.
    assert leaf.sizes == (20, 20, 20, 20)
    assert leaf.labels[::20].tolist() == [3, 1, 2, 0]
    assert joined.sizes == (40, 40)
    assert joined.labels[::20].tolist() == [1, 0, 1, 0]


def test_poles_that_all_fire_together_have_no_opposite() -> None:
    positions, groups = planted_map()
    rho = torch.full((105, 105), 0.1)
    rho[groups[:, None] == groups] = 0.9
    rho.fill_diagonal_(1)
    poles = find_poles(project(positions, rho), 0, settings=SETTINGS)
    assert poles.opposites == (None, None, None)
    assert [pole.opposite_rho for pole in poles.poles] == [None, None, None]
    assert [pole.within_rho for pole in poles.poles] == pytest.approx([0.9] * 3)
    assert [pole.between_rho for pole in poles.poles] == pytest.approx([0.1] * 3)


# validity


@pytest.mark.parametrize("is_distance", [False, True])
def test_validity_is_that_of_hdbscan(is_distance: bool) -> None:
    positions, groups = planted_map()
    points, labels = positions.double().numpy(), groups.numpy()
    data = torch.cdist(positions.double(), positions.double()).numpy() if is_distance else points
    value, why = measure_validity(data, labels, 3, is_distance=is_distance)
    options = {"metric": "precomputed", "d": 3} if is_distance else {}
    assert value == pytest.approx(validity_index(data, labels, **options))
    assert why == ""
    # Groups through one another, where density decides how far apart they are.
    mixed = np.arange(105) % 4 - 1
    value, _ = measure_validity(data, mixed, 3, is_distance=is_distance)
    assert value == pytest.approx(validity_index(data, mixed, **options))


def test_validity_that_can_not_be_given_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    points = np.random.default_rng(0).normal(size=(20, 2))
    none, one, two = np.full(20, -1), np.zeros(20, int), np.arange(20) % 2

    def reason(data: Any, labels: Any) -> str:
        value, why = measure_validity(data, labels, 2, is_distance=False)
        assert value is None
        return why

    assert "no pole" in reason(points, none)
    assert "one pole" in reason(points, one)
    assert "coincide" in reason(np.zeros((20, 2)), two)
    monkeypatch.setattr("pruning.poles.validity._MOST_PAIRS", 199)
    assert "10 neurons" in reason(points, two)


# refusals


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("space", "moon"),
        ("selection", "best"),
        ("min_cluster_size", 1),
        ("min_samples", 0),
        ("epsilon", -0.1),
        ("epsilon", float("nan")),
        ("epsilon", float("inf")),
    ],
)
def test_settings_that_make_no_sense(setting: str, value: Any) -> None:
    with refused(setting, value):
        PoleSettings(**{setting: value})


def test_settings_that_mean_the_same_have_one_key() -> None:
    same = [
        PoleSettings(min_cluster_size=5),
        PoleSettings(min_cluster_size=5, min_samples=5),
        PoleSettings(min_cluster_size=5, epsilon=0),
        PoleSettings(min_cluster_size=5, epsilon=-0.0),
    ]
    assert len({settings.key for settings in same}) == 1
    assert {settings.name for settings in same} == {"correlation-5-leaf"}
    others = [
        PoleSettings(min_cluster_size=6),
        PoleSettings(min_cluster_size=5, min_samples=4),
        PoleSettings(min_cluster_size=5, epsilon=0.1),
        PoleSettings(min_cluster_size=5, selection="eom"),
        PoleSettings(min_cluster_size=5, space="positions"),
    ]
    assert len({settings.key for settings in (*same, *others)}) == 1 + len(others)
    assert len({settings.name for settings in (*same, *others)}) == 1 + len(others)


def test_distances_that_do_not_fit_are_refused_with_their_size(
    correlated: tuple[Projection, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    free = namedtuple("free", "available")(28 * 67**2 - 1)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    needs = ("67 × 67", "35.9 kB", "126 kB")
    with refused("space", "correlation", "layer 0 mlp_post", *needs, "space='positions'"):
        find_poles(correlated[0], 0, settings=replace(SETTINGS, space="correlation"))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: namedtuple("f", "available")(28 * 67**2))
    assert find_poles(correlated[0], 0, settings=replace(SETTINGS, space="correlation")).poles


def test_a_map_is_clustered_though_its_correlations_do_not_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    positions, groups = planted_map()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: namedtuple("f", "available")(1000))
    poles = find_poles(project(positions, torch.eye(105)), 0, settings=SETTINGS)
    assert torch.equal(poles.labels, groups)
    assert poles.poles[0].within_rho is None
    assert "176 kB" in poles.reasons["rho"]


def test_statistics_with_holes_are_damaged(correlated: tuple[Projection, Tensor]) -> None:
    rho = correlated[0].correlation(0, SITE).clone()
    rho[3, 4] = torch.nan
    projection = project(correlated[0].positions(0, SITE), torch.eye(67), rho)
    with refused_naming("NaN", "`projector fit`"):
        find_poles(projection, 0, settings=replace(SETTINGS, space="correlation"))


def test_what_is_not_in_the_projection() -> None:
    projection = project(planted_map()[0], layers=2)
    assert choose_maps(projection, None, [SITE]) == [(0, SITE), (1, SITE)]
    assert choose_maps(projection, (1, 1), [SITE, SITE]) == [(1, SITE)]
    with refused("layer", 7, "0, 1"):
        choose_maps(projection, (0, 7), [SITE])
    with refused("site", "mlp_pots", "mlp_post"):
        choose_maps(projection, None, ["mlp_pots"])


def test_poles_can_be_found_without_names_that_others_rely_on_changing() -> None:
    poles = find_poles(project(planted_map()[0]), 0, "mlp_post", SETTINGS)
    assert isinstance(poles, Poles)
    assert all(isinstance(neuron, int) for chosen in poles.exemplars for neuron in chosen)
    assert poles.opposites == (None, None, None)
