"""The condensed tree as shapes, against how many neurons are left at each density."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hdbscan import HDBSCAN
from numpy.typing import NDArray

from projector.projection.projection import Projection
from pruning.poles.finding import condensed_tree, find_poles
from pruning.poles.poles import PoleSettings
from pruning.poles.tree import Branch, CondensedTree
from tests.pruning.test_preparing import fit
from tests.refused import refused

Case = tuple[NDArray[Any], NDArray[np.int64]]


def clustered(seed: int, *, selection: str = "eom", coincide: bool = False) -> Case:
    """HDBSCAN's table of some clouds of points, and their labels."""
    rng = np.random.default_rng(seed)
    clouds = [rng.normal(c, s, (n, 2)) for c, s, n in ((0, 0.3, 25), (5, 0.2, 18), (5.8, 0.1, 12))]
    points = np.concatenate([*clouds, rng.uniform(-3, 8, (15, 2))])
    if coincide:
        points[:8] = points[0]
    with np.errstate(all="ignore"):
        found = HDBSCAN(
            min_cluster_size=4, approx_min_span_tree=False, cluster_selection_method=selection
        ).fit(points)
    return found.condensed_tree_.to_numpy(), found.labels_.astype(np.int64)


CASES = [clustered(0), clustered(1), clustered(2, selection="leaf"), clustered(3, coincide=True)]


@pytest.fixture(params=range(len(CASES)))
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def width(branch: Branch, at: float) -> float:
    """Of the shape at a density: how much of the line there lies inside of it."""
    x, y = branch.outline_x, branch.outline_y
    crossings = []
    for k in range(len(x)):
        (x0, y0), (x1, y1) = (x[k - 1], y[k - 1]), (x[k], y[k])
        if (y0 <= at) != (y1 <= at):
            crossings.append(x0 + (at - y0) / (y1 - y0) * (x1 - x0))
    crossings.sort()
    return sum(b - a for a, b in zip(crossings[::2], crossings[1::2], strict=True))


def below(table: NDArray[Any], group: int) -> set[int]:
    """Neurons of a group and of all that it splits into."""
    found: set[int] = set()
    for row in table[table["parent"] == group]:
        child = int(row["child"])
        found |= below(table, child) if row["child_size"] > 1 else {child}
    return found


def test_a_branch_is_as_wide_as_the_neurons_that_are_left(case: Case) -> None:
    table, labels = case
    tree = CondensedTree.of_table(table, labels)
    lambdas = np.unique(table["lambda_val"][np.isfinite(table["lambda_val"])])
    middles = np.concatenate([[lambdas[0] / 2], (lambdas[:-1] + lambdas[1:]) / 2])
    for at in middles[:: max(1, len(middles) // 40)]:
        # Neurons that have not fallen out of all groups at this density.
        left = sum(1 for row in table if row["child_size"] == 1 and row["lambda_val"] > at)
        assert sum(width(branch, at) for branch in tree.branches) == pytest.approx(left)


def test_there_is_a_branch_for_every_group_and_the_first_has_all_neurons(case: Case) -> None:
    table, labels = case
    tree = CondensedTree.of_table(table, labels)
    groups = [int(table["parent"].min()), *table["child"][table["child_size"] > 1].tolist()]
    sizes = sorted(len(below(table, group)) for group in groups)
    assert sorted(branch.n_neurons for branch in tree.branches) == sizes
    assert tree.branches[0].n_neurons == len(labels)
    for branch in tree.branches:
        assert np.isfinite([*branch.outline_x, *branch.outline_y]).all()
        assert max(branch.outline_x) - min(branch.outline_x) <= branch.n_neurons
        assert min(branch.outline_y) >= 0


def test_branches_stand_beside_each_other(case: Case) -> None:
    """A group's parts stand where it stood, and none over another."""
    tree = CondensedTree.of_table(*case)
    for at in np.linspace(0.01, max(max(b.outline_y) for b in tree.branches), 60):
        spans = sorted(
            (min(b.outline_x), min(b.outline_x) + width(b, at))
            for b in tree.branches
            if width(b, at) > 0
        )
        for (_, end), (start, _) in itertools.pairwise(spans):
            assert end <= start + 1e-9
        assert all(start >= 0 and end <= tree.branches[0].n_neurons for start, end in spans)


def test_a_branch_has_the_pole_of_all_its_neurons(case: Case) -> None:
    table, labels = case
    tree = CondensedTree.of_table(table, labels)
    groups = [int(table["parent"].min()), *table["child"][table["child_size"] > 1].tolist()]
    expected = []
    for group in groups:
        members = {int(labels[child]) for child in below(table, group)}
        whole = len(members) == 1 and -1 not in members
        expected.append((len(below(table, group)), members.pop() if whole else None))
    found = [(branch.n_neurons, branch.pole) for branch in tree.branches]
    key = lambda each: (each[0], -2 if each[1] is None else each[1])  # noqa: E731
    assert sorted(found, key=key) == sorted(expected, key=key)
    # The root is no pole, and what is coloured is there.
    assert found[0][1] is None
    assert {pole for _, pole in found} - {None} <= set(labels.tolist()) - {-1}
    assert len({pole for _, pole in found} - {None}) >= 1


def test_without_a_pole_no_branch_has_one(case: Case) -> None:
    table, labels = case
    tree = CondensedTree.of_table(table, np.full_like(labels, -1))
    assert {branch.pole for branch in tree.branches} == {None}


def test_neurons_that_coincide_end_above_all_others() -> None:
    table, labels = CASES[3]
    assert np.isinf(table["lambda_val"]).any()
    tree = CondensedTree.of_table(table, labels)
    finite = table["lambda_val"][np.isfinite(table["lambda_val"])].max()
    top = max(max(branch.outline_y) for branch in tree.branches)
    assert finite < top < 1.2 * finite


@pytest.fixture(scope="module")
def projection(
    tmp_path_factory: pytest.TempPathFactory, checkpoint: Callable[[str], Path], text_file: Path
) -> Projection:
    out = tmp_path_factory.mktemp("fitted") / "out"
    return Projection.load(fit(checkpoint("qwen2"), text_file, out))


@pytest.mark.parametrize(
    "settings",
    [
        None,
        PoleSettings("positions", 2, None, "leaf"),
        PoleSettings("correlation", 2, None, "leaf"),
    ],
)
def test_the_tree_of_a_layer_has_the_poles_of_the_layer(
    projection: Projection, settings: PoleSettings | None
) -> None:
    poles = find_poles(projection, 1, "mlp_post", settings or PoleSettings())
    tree = condensed_tree(projection, 1, "mlp_post", settings)
    assert tree.branches[0].n_neurons == poles.n_neurons - len(poles.undefined)
    # Every pole is a group of the tree, with just its neurons.
    sizes: dict[int, int] = {}
    for branch in tree.branches:
        if branch.pole is not None:
            sizes[branch.pole] = max(branch.n_neurons, sizes.get(branch.pole, 0))
    assert len(poles.poles) >= 2
    assert sizes == dict(enumerate(poles.sizes))
    again = condensed_tree(projection, 1, "mlp_post", settings)
    assert again == tree


def test_of_too_few_neurons_there_is_no_tree(projection: Projection) -> None:
    assert condensed_tree(projection, 0, "mlp_post", PoleSettings(min_cluster_size=30)) == (
        CondensedTree(())
    )


def test_without_statistics_only_the_map_has_a_tree(projection: Projection) -> None:
    bare = replace(projection, statistics={})
    assert condensed_tree(bare, 0, "mlp_post", PoleSettings("positions", 2)).branches
    with refused("keep_statistics", False, "`projector fit`"):
        condensed_tree(bare, 0, "mlp_post", PoleSettings("correlation", 2))
