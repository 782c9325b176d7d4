"""Colours and sizes of points: who has which, and what the legend says of it."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from dashboard.drawing import palette
from dashboard.drawing.coloring import (
    color_alike,
    color_by_measure,
    color_by_pole,
    color_by_state,
    group_values,
    hover_of,
    sizes_by,
)
from dashboard.drawing.legend import colors_of
from pruning.poles.poles import Pole, Poles, PoleSettings


def poles(sizes: list[int], n_noise: int) -> Poles:
    labels = [k for k, size in enumerate(sizes) for _ in range(size)] + [-1] * n_noise
    order = np.random.default_rng(0).permutation(len(labels))
    return Poles(
        1,
        "mlp_post",
        PoleSettings(),
        torch.tensor(labels)[torch.from_numpy(order)],
        torch.zeros(len(labels)),
        tuple(Pole(size, (0,)) for size in sizes),
        (),
        0.1,
        0.2,
        {},
    )


def test_neurons_of_a_pole_share_its_colour() -> None:
    found = poles([9, 7, 4], 5)
    painted = color_by_pole(found)
    assert painted.values.dtype == np.uint8
    labels = found.labels.numpy()
    for k in range(3):
        assert set(painted.values[labels == k].tolist()) == {int(colors_of(found)[k])}
    assert set(painted.values[labels < 0].tolist()) == {palette.NO_GROUP}
    assert len(set(painted.values.tolist())) == 4
    assert painted.legend.items == (("in no pole", palette.NO_GROUP),)


def test_the_legend_says_how_many_poles_share_a_colour() -> None:
    items = color_by_pole(poles([3] * 30, 0)).legend.items
    assert items is not None
    n = 30 - palette.N_GROUPS
    assert items[0] == (f"the other {n} poles", palette.OTHER_GROUP)


def test_a_signed_number_is_blue_or_orange_about_zero() -> None:
    values = np.array([-2.0, 0.0, 0.5, 1.0])
    painted = color_by_measure("mean", values)
    assert painted.values[1] == 128
    assert painted.values[0] < 128 < painted.values[2] < painted.values[3]
    assert painted.colors is not None
    np.testing.assert_array_equal(painted.colors, palette.diverging())
    # The same reach to both sides, with a minus that is one.
    assert painted.legend.low == f"−{painted.legend.high}"


@pytest.mark.parametrize("name", ["mean", "spread", "importance"])
def test_a_greater_number_has_a_higher_shade_and_a_larger_size(name: str) -> None:
    values = np.random.default_rng(0).lognormal(size=500).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        painted = color_by_measure(name, values)
        sizes = sizes_by(name, values)
    order = np.argsort(values)
    for shown in (painted.values, sizes):
        assert shown.dtype == np.uint8
        assert (np.diff(shown[order].astype(int)) >= 0).all()
        assert len(set(shown.tolist())) > 100
    low, high = float(painted.legend.low), float(painted.legend.high)
    assert values.min() <= low < high <= values.max()
    assert (values < low).mean() < 0.05
    assert (values > high).mean() < 0.05


@pytest.mark.parametrize("name", ["mean", "spread"])
def test_dead_neurons_do_not_spoil_the_shades_of_the_others(name: str) -> None:
    values = np.random.default_rng(0).lognormal(size=500)
    alive = color_by_measure(name, values).values
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = color_by_measure(name, np.concatenate([values, np.full(200, np.nan)])).values
        assert (sizes_by(name, np.concatenate([values, np.full(200, np.nan)])) > 0).all()
    np.testing.assert_array_equal(found[:500], alive)
    assert not found[500:].any()


def test_variance_of_nothing_is_the_lowest_shade() -> None:
    values = np.array([0.0, 1e-4, 1.0, 100.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = color_by_measure("spread", values).values
        none = color_by_measure("spread", np.zeros(3))
    assert found[0] == 0
    assert found[3] == 255
    # On a logarithmic scale.
    assert 150 < found[2] < 180
    assert not none.values.any()


def test_who_is_dead_is_grey_and_counted() -> None:
    painted = color_by_state(6, [0, 4], [5])
    assert np.flatnonzero(painted.values == palette.NO_GROUP).tolist() == [0, 4, 5]
    assert painted.legend.items is not None
    text = " ".join(name for name, _ in painted.legend.items)
    assert "3 alive" in text
    assert "2 dead" in text
    assert "1 not finite" in text
    assert (color_by_state(3, [], []).values != palette.NO_GROUP).all()
    assert len(set(color_alike(3).values.tolist())) == 1


def test_who_goes_differs_from_who_stays() -> None:
    found = group_values(5, (1, 3))
    assert len({found[0], found[2], found[4]}) == 1
    assert found[1] == found[3] != found[0]
    colors = palette.groups()
    assert tuple(colors[found[0]]) != tuple(colors[found[1]])
    assert len(set(group_values(5, ()).tolist())) == 1


def test_a_point_tells_its_measures() -> None:
    measures = {"mean": np.arange(7.0), "spread": np.ones(7)}
    found = hover_of(measures)
    assert [each.values.tolist() for each in found] == [v.tolist() for v in measures.values()]
    assert hover_of({}) == ()
