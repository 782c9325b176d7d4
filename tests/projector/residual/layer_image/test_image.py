"""States folded into rows, and the range of their colours."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from projector.errors import SettingError, UserError
from projector.residual.layer_image.image import (
    ROOM,
    LayerImage,
    cell_pixels,
    check_room,
    choose_fold,
    difference,
    layer_image,
    layer_images,
)


def states(n_frames: int, n_hidden: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n_frames, n_hidden)).astype(np.float32)


def test_a_vector_is_folded_like_a_text_into_lines() -> None:
    given = torch.arange(14, dtype=torch.float32).reshape(2, 7)
    image = layer_image(given, fold=3)
    rows = [[0, 1, 2], [3, 4, 5], [6, np.nan, np.nan]]
    np.testing.assert_array_equal(image.values[0], rows)
    np.testing.assert_array_equal(image.vectors, given.numpy())
    np.testing.assert_array_equal(image.folded(2).vectors, given.numpy())
    assert image.names == ("embedding", "layer 0")


@pytest.mark.parametrize("quantile", [0.6, 0.9, 1.0])
def test_a_range_is_symmetric_and_holds_the_quantile(quantile: float) -> None:
    given = states(5, 40) + 0.5
    image = layer_image(given, quantile=quantile)
    ordered = np.sort(np.abs(given).ravel())
    place = quantile * (len(ordered) - 1)
    low, high = ordered[int(np.floor(place))], ordered[int(np.ceil(place))]
    assert low <= image.high[0] <= high
    assert (image.low == -image.high).all()
    assert len(set(image.high)) == 1
    n_beyond = (np.abs(given) > image.high[0]).sum()
    assert image.clipped_share == pytest.approx(n_beyond / given.size)
    np.testing.assert_allclose(image.clipped, (np.abs(given) > image.high[0]).mean(axis=1))


def test_each_layer_may_have_its_own_range() -> None:
    given = states(4, 50) * np.array([[1], [10], [100], [1000]], dtype=np.float32)
    image = layer_image(given, range="per-layer", quantile=1.0)
    np.testing.assert_allclose(image.high, np.abs(given).max(axis=1))
    assert image.as_dict()["high"] is None


def test_few_huge_dimensions_are_clipped_and_the_rest_is_seen() -> None:
    given = states(10, 200)
    given[:, 7] = 5000
    image = layer_image(given)
    assert image.high[0] < 5 < layer_image(given, quantile=1.0).high[0]
    assert image.clipped_share == pytest.approx(0.005, abs=1e-3)
    assert image.largest(3) == (7, 5000.0)


def test_models_share_one_range_and_a_difference_has_its_own() -> None:
    a, b = layer_images([states(3, 20), 100 * states(3, 20, 1)], models=("a", "b"))
    assert a.high[0] == b.high[0] > 50
    found = difference(a, b)
    np.testing.assert_allclose(found.vectors, b.vectors - a.vectors)
    assert found.values.shape == a.values.shape
    same = difference(a, a)
    assert not same.vectors.any()
    assert not same.high.any()
    assert not same.clipped.any()


def test_a_difference_that_is_mostly_zero_has_a_range() -> None:
    given = np.zeros((10, 100), dtype=np.float32)
    given[9, :3] = (1, -2, 3)
    assert layer_image(given).high[0] == 2


def test_models_of_two_shapes_have_no_difference() -> None:
    a, b = layer_image(states(3, 20)), layer_image(states(4, 20), model="b")
    with pytest.raises(SettingError) as caught:
        difference(a, b)
    assert (caught.value.setting, caught.value.value) == ("against", "b")
    assert "2 layers" in str(caught.value)
    assert "3 layers" in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("quantile", 0.5),
        ("quantile", 1.1),
        ("quantile", float("nan")),
        ("range", "each"),
        ("fold", 0),
    ],
)
def test_a_setting_that_makes_no_image(setting: str, value: object) -> None:
    with pytest.raises(SettingError) as caught:
        layer_image(states(2, 8), **{setting: value})  # type: ignore[arg-type]
    assert caught.value.setting == setting


def test_states_that_are_not_finite_name_their_layer() -> None:
    given = states(3, 8)
    given[2, 1] = np.inf
    with pytest.raises(UserError) as caught:
        layer_image(given)
    assert caught.value.setting == "dtype"
    assert "layer 1" in str(caught.value)


@pytest.mark.parametrize("n_panels", [1, 3])
@pytest.mark.parametrize("n_frames", [2, 31, 81])
@pytest.mark.parametrize("n_hidden", [32, 33, 576, 8191, 8192])
def test_a_picture_has_room_for_every_shape(n_hidden: int, n_frames: int, n_panels: int) -> None:
    width = choose_fold(n_hidden, n_frames, n_panels)
    n_rows = -(-n_hidden // width)
    cell = cell_pixels((n_frames, n_rows, width), n_panels)
    assert cell >= 1
    assert n_panels * width * cell <= ROOM[0]
    assert n_frames * n_rows * cell <= ROOM[1]
    check_room(width, (n_frames, n_hidden), n_panels)


def test_rows_that_do_not_fit_are_refused() -> None:
    for fold in (1, 8192):
        with pytest.raises(SettingError) as caught:
            check_room(fold, (31, 8192))
        assert (caught.value.setting, caught.value.value) == ("fold", fold)


def test_what_json_holds_has_no_nan() -> None:
    image: LayerImage = layer_image(states(2, 7), fold=3, model="m", token="t")
    content = image.as_dict()
    assert content["shape"] == [2, 7]
    assert (content["rows"], content["columns"]) == (3, 3)
    assert content["frames"][1]["name"] == "layer 0"
    norm = float(np.linalg.norm(image.vectors[1]))
    assert content["frames"][1]["norm"] == pytest.approx(norm)
