"""What the viewer is given: the artifact's own numbers, scales of all frames, and sums."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from projector.figures.layer_time.data import viewer_data
from projector.figures.layer_time.views import parts_view
from projector.figures.layer_time.words import NAMELESS, facts_of
from projector.figures.layers.cloud.densities import read_clouds
from tests.projector.figures.layer_time.made import (
    N_BEGINNING,
    N_END,
    A,
    B,
    contributions,
    two_prompts,
)


def array(text: str, kind: str, *shape: int) -> NDArray[Any]:
    return np.frombuffer(base64.b64decode(text), kind).reshape(shape)


def test_arrays_are_those_of_the_artifact() -> None:
    report, tensors = two_prompts()
    data = viewer_data(report, tensors)
    n_frames, n = tensors["positions"].shape[:2]
    assert (data["n_frames"], data["n_points"]) == (n_frames, n) == (4, len(A) + len(B))
    positions = array(data["positions"], "<f4", n_frames, n, 3)
    np.testing.assert_array_equal(positions, tensors["positions"])
    np.testing.assert_array_equal(array(data["norms"], "<f4", n_frames, n), tensors["norms"])
    moved = array(data["displacements"], "<f4", n_frames, n)
    np.testing.assert_array_equal(moved[1:], tensors["displacements"][1:])
    # Nothing has moved yet: that is no distance of 0.
    assert np.isnan(moved[0]).all()
    np.testing.assert_array_equal(
        array(data["neighbours"], "<u2", n_frames, n, 2), tensors["neighbours"]
    )
    shares = array(data["distances"], "<u2", n_frames, n, 2) / 65534
    np.testing.assert_allclose(data["distances_max"] * shares**2, tensors["distances"], rtol=1e-4)
    np.testing.assert_array_equal(array(data["pairs"], "<i4", -1, 2), tensors["partners"])
    assert data["layers"] == [None, 0, 1, 2]
    lens = data["predictions"][1]
    index = array(lens["index"], "<i4", n_frames, len(B))
    assert lens["texts"][index[2, 3]] == "␣2.3"
    assert array(lens["probability"], "<f4", n_frames, len(B))[2, 3] == pytest.approx(0.3)


def test_scales_are_of_all_frames_and_leave_outliers_out() -> None:
    report, tensors = two_prompts()
    data = viewer_data(report, tensors)
    own = tensors["outlying"] == 0
    low, high = np.quantile(tensors["norms"][:, own], (0.01, 0.99))
    assert data["scales"]["norm"] == {"low": pytest.approx(low), "high": pytest.approx(high)}
    points = tensors["positions"][:, own].reshape(-1, 3)
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    assert data["middle"] == pytest.approx(middle.tolist(), rel=1e-5)
    # The outliers stand at 50: no frame reaches there.
    assert max(data["reach"]) < 20


def test_a_scale_that_follows_has_one_centre() -> None:
    report, tensors = two_prompts()
    # The stream grows: the first frame would be a dot.
    tensors["positions"] *= np.array([1, 3, 9, 27], dtype=np.float32)[:, None, None]
    view = viewer_data(report, tensors)["followed"]
    own = tensors["positions"][:, tensors["outlying"] == 0]
    away = np.abs(own - np.array(view["middle"])).max(axis=(1, 2))
    widest = max(view["reach"])
    assert widest == pytest.approx(away.max(), rel=1e-5)
    np.testing.assert_allclose(view["magnified"], widest / away, rtol=1e-5)
    assert min(view["magnified"]) == pytest.approx(1)
    assert max(view["magnified"]) > 5


def test_an_outlier_leaves_the_scale_of_lines_alone() -> None:
    report, tensors = two_prompts()
    far = tensors["outlying"] == 1
    # Each is near a token, and far from an outlier.
    tensors["neighbours"][:] = [1, 0]
    tensors["distances"][..., 0] = np.linspace(1, 4, len(far))
    tensors["distances"][..., 1] = 1000
    tensors["distances"][:, far] = 1000
    scale = viewer_data(report, tensors)["scales"]["line"]
    assert not scale["is_log"]
    assert 1 <= scale["low"] < scale["high"] <= 4
    # Where most are within a small part of the scale, it is that of the logarithm.
    tensors["distances"][..., 0] = np.geomspace(1, 1000, len(far))
    tensors["distances"][:, far] = 1e6
    scale = viewer_data(report, tensors)["scales"]["line"]
    assert scale["is_log"]
    assert 1 <= scale["low"] < 10
    assert 500 < scale["high"] <= 1000


def test_the_density_is_that_of_the_film() -> None:
    report, tensors = two_prompts()
    tensors["positions"] *= np.array([1, 3, 9, 27], dtype=np.float32)[:, None, None]
    data = viewer_data(report, tensors)
    clouds = read_clouds(report, tensors)
    assert clouds is not None
    found = data["density"]
    assert found["follows"]
    np.testing.assert_array_equal(found["low"], clouds.low)
    np.testing.assert_array_equal(found["high"], clouds.high)
    np.testing.assert_array_equal(found["spread"], clouds.spread)
    assert found["bandwidth"] == clouds.bandwidth
    highest = max(clouds.density(f, k, (300, 300)).max() for f in range(4) for k in (0, 1))
    assert found["highest"] == pytest.approx(highest, rel=0.01)
    assert "left out" in found["words"]
    counted = array(data["is_counted"], "u1", -1)
    np.testing.assert_array_equal(counted, 1 - tensors["outlying"])
    # Sums are of what is counted already.
    assert array(viewer_data(*contributions())["is_counted"], "u1", -1).tolist() == [1] * 10 + [
        0,
        0,
    ]


def test_a_token_that_is_no_character_has_a_name() -> None:
    report, tensors = two_prompts()
    report["prompts"][0]["tokens"][2]["text"] = ""
    token = viewer_data(report, tensors)["prompts"][0]["tokens"][2]
    assert (token["name"], token["text"]) == (NAMELESS, NAMELESS)
    assert f"“{NAMELESS}” in A" in " ".join(facts_of(report))


def test_content_has_its_own_id() -> None:
    report, tensors = two_prompts()
    first = viewer_data(report, tensors)["id"]
    assert viewer_data(*two_prompts())["id"] == first
    other = tensors | {"norms": tensors["norms"] + 1}
    assert viewer_data(report, other)["id"] != first


def test_tokens_that_prompts_share_have_one_colour_and_one_part() -> None:
    prompts = viewer_data(*two_prompts())["prompts"]
    a, b = (prompt["tokens"] for prompt in prompts)
    for i in range(N_BEGINNING):
        assert a[i]["ramp"] == b[i]["ramp"]
        assert a[i]["part"] == b[i]["part"] == 0
    for i in range(1, N_END + 1):
        assert a[-i]["ramp"] == b[-i]["ramp"]
        assert (a[-i]["part"], b[-i]["part"]) == (3, 4)
    assert [token["part"] for token in a[N_BEGINNING:-N_END]] == [1, 1]
    assert [token["part"] for token in b[N_BEGINNING:-N_END]] == [2]
    for tokens in (a, b):
        ramp = [token["ramp"] for token in tokens]
        assert ramp == sorted(ramp)
        assert (ramp[0], ramp[-1]) == (0, 1)


def test_contributions_come_with_their_sums() -> None:
    report, tensors = contributions()
    data = viewer_data(report, tensors)
    n = tensors["positions"].shape[1]
    assert (data["n_sums"], data["n_points"]) == (2, n + 2)
    # Contributions stay where they are and travel once; their sums move.
    assert (data["n_still"], data["from_origin"]) == (n, True)
    positions = array(data["positions"], "<f4", 3, 2, 3)
    still = array(data["still_positions"], "<f4", n, 3)
    np.testing.assert_array_equal(still, tensors["positions"][-1])
    for f in range(3):
        for token in range(2):
            own = (tensors["owner_token"] == token) & (tensors["born"] <= f)
            total = tensors["positions"][f, own].sum(axis=0)
            np.testing.assert_allclose(positions[f, token], total, rtol=1e-5)
    assert array(data["owner_token"], "<i4", n + 2)[n:].tolist() == [0, 1]
    assert array(data["owner_part"], "<i4", n + 2)[n:].tolist() == [-1, -1]
    np.testing.assert_array_equal(array(data["still_norms"], "<f4", n), tensors["norms"][-1])
    assert np.isnan(array(data["norms"], "<f4", 3, 2)).all()
    assert data["kinds"] == ("embedding", "attention head", "MLP neurons")
    # They open as large as they are, however far out an outlier's or their sums are.
    wide = tensors["positions"].copy()
    wide[:, :5] *= 1000
    outlying = np.arange(n) < 5
    shown = viewer_data(report, tensors | {"positions": wide, "outlying": outlying})
    view = shown["parts_view"]
    assert max(view["reach"]) <= np.abs(wide[-1, 5:]).max()
    assert len(view["followed"]["magnified"]) == 3
    assert "95 %" in view["words"]
    # Of many, those that are far out are left out of the view.
    many = np.concatenate([np.random.default_rng(3).normal(size=(98, 3)), np.full((2, 3), 900)])
    there, none = np.ones((1, 100), dtype=bool), np.zeros(100, dtype=bool)
    assert max(parts_view(many[None].astype(np.float32), there, none, 3)["reach"]) < 5
    # Where positions don't add up there are none.
    report["settings"]["reduction"] = "umap"
    assert viewer_data(report, tensors)["n_sums"] == 0
    assert viewer_data(report, tensors)["parts_view"] is None


def test_lines_travel_only_of_particles_that_are_there() -> None:
    report, tensors = contributions()
    n_frames, n = tensors["positions"].shape[:2]
    there = np.arange(n_frames)[:, None] >= tensors["born"]
    near = np.random.default_rng(2).integers(0, n, (n_frames, n, 2)).astype(np.int32)
    near[:, 0, 1] = -1
    far = np.where(near < 0, np.nan, near + 0.5).astype(np.float32)
    data = viewer_data(report, tensors | {"neighbours": near, "distances": far})
    found = array(data["neighbours"], "<u2", -1, 2)
    np.testing.assert_array_equal(found, np.where(near < 0, 65535, near)[there])
    numbers = array(data["distances"], "<u2", -1, 2)
    assert ((numbers == 65535) == np.isnan(far)[there]).all()
    kept = numbers != 65535
    shown = data["distances_max"] * (numbers / 65534) ** 2
    np.testing.assert_allclose(shown[kept], far[there][kept], rtol=1e-3)


def test_contributions_that_move_travel_in_each_frame() -> None:
    """As under a map for each layer."""
    report, tensors = contributions()
    moved = tensors["positions"].copy()
    moved[2, 0] += 1
    data = viewer_data(report, tensors | {"positions": moved})
    n = moved.shape[1]
    assert data["n_still"] == 0
    positions = array(data["positions"], "<f4", 3, data["n_points"], 3)
    np.testing.assert_array_equal(positions[:, :n], moved)
