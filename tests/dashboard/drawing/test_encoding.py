"""Numbers as bytes, against the same said in plain Python."""

from __future__ import annotations

import base64
import math

import numpy as np
import pytest
import torch

from dashboard.drawing.encoding import (
    bounds,
    frame_of,
    frames_of,
    id_of,
    in_three,
    scale_of,
    text_of,
    to_bytes,
    to_signed,
)
from projector.figures.axes import shown_axes

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.float32])
def test_text_holds_the_bytes(dtype: type) -> None:
    values = (np.random.default_rng(0).normal(size=(7, 5)) * 50).astype(dtype)
    # A view that is not laid out in order, too.
    for each in (values, values.T, values[::2]):
        decoded = np.frombuffer(base64.b64decode(text_of(each)), dtype).reshape(each.shape)
        np.testing.assert_array_equal(decoded, each)


def test_an_id_is_of_the_numbers() -> None:
    a = np.arange(6, dtype=np.float32)
    assert id_of(a) == id_of(a.copy()) == id_of(np.arange(12, dtype=np.float32)[:6])
    b = a.copy()
    b[3] += 1e-6
    others = [id_of(b), id_of(a.astype(np.float64)), id_of(a.reshape(2, 3)), id_of(a, a), id_of()]
    assert len({id_of(a), *others}) == 6


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_points_have_three_coordinates(dim: int) -> None:
    positions = np.random.default_rng(dim).normal(size=(4, dim)).astype(np.float32)
    positions[2] = NAN
    found = in_three(torch.from_numpy(positions))
    assert found.shape == (4, 3)
    assert found.dtype == np.float32
    for row in (0, 1, 3):
        assert found[row].tolist() == [*positions[row].tolist(), 0.0, 0.0][:3]
    # Not at the origin, where it would be drawn.
    assert np.isnan(found[2]).all()


def test_points_of_many_dimensions_are_those_that_every_picture_draws() -> None:
    """The principal axes: what spreads along a later coordinate is seen."""
    positions = torch.randn(40, 5, generator=torch.Generator().manual_seed(0)) * 0.01
    positions[:, 4] += torch.linspace(-1, 1, 40)
    positions[7] = NAN
    found = in_three(positions)
    np.testing.assert_array_equal(found, shown_axes(positions).numpy())
    assert np.nanstd(found[:, 0]) > 0.5
    assert np.isnan(found[7]).all()


def test_a_neuron_that_lacks_a_coordinate_has_no_place() -> None:
    positions = np.zeros((3, 5))
    positions[1, 4] = NAN
    assert np.isnan(in_three(torch.from_numpy(positions))).all(axis=1).tolist() == [
        False,
        True,
        False,
    ]


def test_the_frame_is_that_of_neurons_with_a_position() -> None:
    points = np.array([[3, -1, 0], [NAN] * 3, [10, 4, 0], [5, 0, 0]], dtype=np.float32)
    middle, reach = frame_of(points)
    np.testing.assert_allclose(middle, [6.5, 1.5, 0])
    np.testing.assert_allclose(reach, [3.5, 2.5, 0])
    for none in (points[1:2], points[:0]):
        middle, reach = frame_of(none)
        assert middle.tolist() == [0, 0, 0]
        assert (reach > 0).all()


def test_bounds_leave_out_what_is_extreme() -> None:
    values = np.concatenate([np.linspace(0, 1, 998), [1e9, -1e9, NAN, INF]])
    least, most = bounds(values)
    assert -0.01 < least < 0.05
    assert 0.95 < most < 1.01
    assert bounds(np.array([NAN, INF])) == (0.0, 1.0)
    assert bounds(np.full(5, 3.0)) == (3.0, 4.0)
    assert bounds(np.array([])) == (0.0, 1.0)


def test_bytes_are_shares_of_the_way() -> None:
    values = np.random.default_rng(0).normal(size=1000)
    expected = [min(255, max(0, round((v + 1) / 3 * 255))) for v in values.tolist()]
    found = to_bytes(values, -1.0, 2.0)
    assert found.dtype == np.uint8
    # Halves are rounded alike.
    assert found.tolist() == expected
    assert to_bytes(np.array([NAN, -INF, INF, -5.0, 5.0]), -1.0, 2.0).tolist() == [
        0,
        0,
        255,
        0,
        255,
    ]


def test_signed_bytes_keep_sign_and_share() -> None:
    values = np.random.default_rng(1).normal(size=(20, 30)).astype(np.float32)
    found = to_signed(values, 2.0)
    assert found.dtype == np.int8
    decoded = found.astype(float) / 127 * 2.0
    clipped = values.clip(-2, 2)
    assert np.abs(decoded - clipped).max() <= 1 / 127 + 1e-6
    ends = np.array([0.0, NAN, INF, -INF, 9.0, -9.0])
    assert to_signed(ends, 2.0).tolist() == [0, 0, 127, -127, 127, -127]
    # −128 is never used, so that a sign turned is a sign turned.
    assert (to_signed(-values, 2.0) == -found).all()
    assert not to_signed(values, 0.0).any()


def test_frames_are_bytes_on_a_scale_of_their_own_or_a_given_one() -> None:
    values = np.random.default_rng(2).normal(size=(7, 50)).astype(np.float16)
    own, given = frames_of(values), frames_of(values, 3.0)
    assert own.scale == scale_of(values)
    assert given.scale == 3.0
    for frames in (own, given):
        assert (frames.values == to_signed(values.astype(np.float32), frames.scale)).all()
        assert frames.id == id_of(frames.values)
    assert own.id != given.id


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_the_scale_is_what_few_exceed(dtype: type) -> None:
    # More numbers than half precision can count.
    values = np.random.default_rng(0).normal(size=(300, 300)).astype(dtype)
    scale = scale_of(values)
    assert 0.0005 < (np.abs(values) > scale).mean() < 0.0015
    assert scale_of(-values) == scale


def test_there_is_always_a_scale() -> None:
    assert scale_of(np.zeros(10)) == 1.0
    assert scale_of(np.array([])) == 1.0
    assert scale_of(np.array([NAN, INF])) == 1.0
    # A single neuron that fires sets it, where no quantile does.
    lone = np.zeros(100_000)
    lone[7] = -3.0
    assert scale_of(lone) == 3.0
