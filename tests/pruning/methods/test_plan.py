"""A plan tells who stays and who stands in, and comes back from disk as it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from pruning.methods import plan
from pruning.methods.plan import LayerPlan, PruningPlan, StandIn, kept_width
from pruning.reporting.kinds import KINDS
from tests.refused import refused, refused_naming

PLAN = PruningPlan(
    "poles",
    0.4,
    3,
    "global",
    2,
    (
        LayerPlan(5, (0, 2, 4), (StandIn(1, 0, -0.1 / 3), StandIn(1, 4, 1e-300), StandIn(3, 2, 1))),
        LayerPlan(4, (1, 3), groups=(0, 0, 1, 1)),
        LayerPlan(2, (0, 1)),
    ),
)


def test_a_plan_comes_back_from_json_as_it_was() -> None:
    assert PruningPlan.from_dict(json.loads(json.dumps(PLAN.to_dict()))) == PLAN


def test_what_follows_from_a_plan() -> None:
    assert PLAN.widths == [3, 2, 2]
    assert [layer.removed for layer in PLAN.layers] == [(1, 3), (0, 2), ()]
    assert PLAN.layers[0].kept_index.tolist() == [0, 2, 4]
    assert not PLAN.changes_nothing
    whole = PruningPlan("random", 0.0, 0, "uniform", 1, (LayerPlan(2, (0, 1)),))
    assert whole.changes_nothing


def _set(*path: Any) -> Callable[[dict[str, Any]], None]:
    *way, last, value = path

    def change(values: Any) -> None:
        for key in way:
            values = values[key]
        values[last] = value

    return change


def _drop(*path: Any) -> Callable[[dict[str, Any]], None]:
    *way, last = path

    def change(values: Any) -> None:
        for key in way:
            values = values[key]
        del values[last]

    return change


@pytest.mark.parametrize(
    ("damage", "names"),
    [
        (_drop("format"), "transformer-pruning-plan"),
        (_set("format", "transformer-projection"), "transformer-pruning-plan"),
        (_set("format_version", 2), "version 2 & up to 1 & `pruning prune`"),
        (_drop("format_version"), "format_version & None"),
        (_drop("method"), "damaged & 'method'"),
        (_drop("layers"), "damaged & 'layers'"),
        (_set("layers", None), "damaged"),
        (_set("layers", [3]), "damaged"),
        (_set("sparsity", "much"), "damaged"),
        (_drop("layers", 0, "kept"), "damaged & 'kept'"),
        (_set("layers", 0, "kept", 2), "damaged"),
        (_set("layers", 0, "kept", [0, "x", 4]), "damaged"),
        (_set("layers", 0, "n_neurons", float("inf")), "damaged"),
        (_set("layers", 0, "kept", [0, 2, float("inf")]), "damaged"),
        (_set("layers", 0, "kept", []), "damaged & layer 0"),
        (_set("layers", 0, "kept", [2, 0, 4]), "damaged & layer 0 & ascending"),
        (_set("layers", 0, "kept", [0, 2, 2, 4]), "damaged & layer 0 & ascending"),
        (_set("layers", 2, "kept", [0, 2]), "damaged & layer 2"),
        (_set("layers", 2, "kept", [-1, 0]), "damaged & layer 2"),
        # One of the three lists is shorter.
        (_set("layers", 0, "stand_ins", "by", [0, 4]), "damaged"),
        (_drop("layers", 0, "stand_ins", "coefficient"), "damaged & 'coefficient'"),
        # A removed neuron stands in; a kept one is stood in for; one is not of this layer.
        (_set("layers", 0, "stand_ins", "by", [0, 4, 1]), "layer 0 & neuron 1 & neuron 3"),
        (_set("layers", 0, "stand_ins", "neuron", [1, 1, 2]), "layer 0 & neuron 2"),
        (_set("layers", 0, "stand_ins", "neuron", [1, 1, 5]), "layer 0 & neuron 2 & neuron 5"),
        (_set("layers", 0, "stand_ins", "neuron", [1, 1, -2]), "layer 0 & neuron 2 & neuron -2"),
        (
            _set("layers", 0, "stand_ins", "coefficient", [1, 1, float("nan")]),
            "damaged & layer 0 & neuron 2 & nan",
        ),
        (_set("layers", 1, "groups", [0, 0, 1]), "damaged & layer 1 & groups"),
        (_set("layers", 1, "groups", [0, 0, 0, 0]), "damaged & layer 1 & groups"),
        (_set("layers", 1, "groups", [0, 0, 1, 2]), "damaged & layer 1 & groups"),
    ],
)
def test_a_damaged_plan_is_refused_in_one_line(
    damage: Callable[[dict[str, Any]], None], names: str
) -> None:
    values = json.loads(json.dumps(PLAN.to_dict()))
    damage(values)
    with refused_naming("'pruning.json'", *names.split(" & ")):
        PruningPlan.from_dict(values)


@pytest.mark.parametrize("values", [[], None, "plan", 3])
def test_what_is_no_table_is_no_plan(values: Any) -> None:
    with refused_naming("'pruning.json'", "transformer-pruning-plan"):
        PruningPlan.from_dict(values)


@pytest.mark.parametrize(
    ("n_neurons", "sparsity", "round_to", "expected"),
    [
        (40, 0.0, 1, 40),
        (40, 0.3, 1, 28),
        (40, 0.31, 1, 28),  # 27.6
        (40, 0.99, 1, 1),
        (40, 0.999999, 1, 1),
        (1, 0.9, 1, 1),
        (1024, 0.3, 64, 704),  # 11.2 × 64
        (1024, 0.999, 64, 64),
        (40, 0.5, 16, 16),  # 1.25 × 16
        (40, 0.3, 16, 32),  # 1.75 × 16
        # Never more than there are.
        (40, 0.0, 16, 40),
        (40, 0.0, 64, 40),
        (44, 0.1, 16, 32),  # 40 neurons, rounded up to 48, are not there
        (44, 0.0, 16, 44),  # 2.75 × 16 is 48
    ],
)
def test_kept_width(n_neurons: int, sparsity: float, round_to: int, expected: int) -> None:
    assert kept_width(n_neurons, sparsity, round_to) == expected


def test_a_multiple_above_the_width_is_refused() -> None:
    with refused("round_to", 64):
        kept_width(40, 0.1, 64)


def test_kept_width_falls_with_sparsity_and_is_a_multiple() -> None:
    for n in (7, 40, 100, 513):
        for m in (1, 4, 7):
            widths = [kept_width(n, s / 100, m) for s in range(100)]
            assert widths == sorted(widths, reverse=True)
            assert all(min(n, m) <= width <= n for width in widths)
            assert all(width % m == 0 for width in widths[1:])
            assert all(
                abs(width - n * (1 - s / 100)) <= m / 2 + 1e-9 or width in (m, n // m * m)
                for s, width in enumerate(widths)
            )


def test_every_older_version_has_a_way_up() -> None:
    assert sorted(plan.UPGRADES) == list(range(1, plan.FORMAT_VERSION))
    for kind in KINDS.values():
        assert sorted(kind.upgrades) == list(range(1, kind.version))
