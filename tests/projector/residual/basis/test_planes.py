"""Planes before and after a map, on matrices whose singular values are worked by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from projector.errors import SettingError
from projector.model.capture import Tap
from projector.residual.basis import planes
from projector.residual.basis.maps import LinearMap, list_maps, read_map
from projector.residual.basis.planes import (
    find_spectrum,
    read_points,
    view_map,
    view_matrix,
)
from tests.families import subject_of

IDS = [5, 6, 7, 8, 9, 10]


def as_map(left: Tensor, right: Tensor | None = None, *, is_one_space: bool = False) -> LinearMap:
    tap = Tap(nn.Identity(), "input")
    return LinearMap(0, "W", None, left, right, "in", "out", is_one_space, tap)


@pytest.mark.parametrize("shape", [(5, 7), (7, 5)])
@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e6])
def test_a_map_of_rank_one_has_one_singular_value_and_orthonormal_directions(
    shape: tuple[int, int], scale: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(n, generator=generator) for n in shape)
    found = find_spectrum(as_map(scale * torch.outer(left, right)))
    assert float(found.values[0]) == pytest.approx(scale * float(left.norm() * right.norm()))
    assert not found.values[1:].any()
    for axes in (found.left, found.right):
        assert torch.allclose(axes.T @ axes, torch.eye(5), atol=1e-5)


def test_a_turn_keeps_lengths_and_a_shear_stretches_by_the_golden_ratio() -> None:
    turn = view_matrix(((0.6, -0.8), (0.8, 0.6)), [(1.0, 0.0)])
    assert turn.singular_values == pytest.approx((1, 1))
    assert turn.points_after == (pytest.approx((0.6, 0.8)),)
    golden = (1 + math.sqrt(5)) / 2
    shear = view_matrix(((1.0, 1.0), (0.0, 1.0)), [(1.0, 0.5), (-0.5, 0.4)])
    assert shear.singular_values == pytest.approx((golden, 1 / golden))
    assert shear.points_after == (pytest.approx((1.5, 0.5)), pytest.approx((-0.1, 0.4)))
    assert shear.is_toy
    assert shear.orthant_before is not None
    assert shear.orthant_before.value == 0.5


def test_the_plane_is_that_of_the_top_two_directions() -> None:
    weight = torch.zeros(4, 5)
    weight[1, 3], weight[0, 0], weight[2, 4] = 3, -2, 1
    points = torch.tensor([[1.0, 9, 0, 1, 0], [0, 0, 9, -1, 0]])
    view = view_map(as_map(weight), points, ["a", "b"])
    assert view.singular_values == pytest.approx((3, 2, 1, 0), abs=1e-6)
    # Axes after are those that the axes before are taken to, so that nothing is turned over.
    assert view.matrix == (pytest.approx((3, 0)), pytest.approx((0, 2)))
    before = torch.tensor(view.points_before) * view.point_unit
    assert before.tolist() == [pytest.approx([1, 1]), pytest.approx([-1, 0])]
    after = torch.tensor(view.points_after) * view.point_unit
    assert after.tolist() == [pytest.approx([3, 2]), pytest.approx([-3, 0])]
    top, inside, _ = view.shares
    assert top.value == pytest.approx(13 / 14)
    # 3 of the points' squared length of 83 + 82.
    assert inside.value == pytest.approx(3 / 165)
    assert inside.control is not None
    assert 0.2 < inside.control < 0.6


def test_in_its_own_plane_the_matrix_shows_what_stays() -> None:
    weight = torch.zeros(6, 6)
    # The plane of axes 0 and 1 is turned in itself, and half of axis 0 leaves it.
    weight[1, 0], weight[0, 1], weight[5, 0] = 3, -2, 3
    view = view_map(as_map(weight, is_one_space=True), same_plane=True)
    assert view.is_same_plane
    assert not view.follows_matrix
    assert view.matrix == (pytest.approx((0, -2), abs=1e-6), pytest.approx((3, 0), abs=1e-6))
    staying = view.shares[1]
    assert staying.value == pytest.approx((9 + 4) / (18 + 4))
    assert staying.control is not None
    assert staying.control_high is not None
    assert staying.control < 0.5
    with pytest.raises(SettingError) as raised:
        view_map(as_map(weight), same_plane=True)
    assert raised.value.setting == "same_plane"


def test_factors_give_what_their_product_gives() -> None:
    generator = torch.Generator().manual_seed(3)
    left, right = (torch.randn(shape, generator=generator) for shape in ((9, 3), (3, 7)))
    points = torch.randn(4, 7, generator=generator)
    of_factors = view_map(as_map(left, right), points, "abcd")
    of_product = view_map(as_map(left @ right), points, "abcd")
    assert of_factors.singular_values == pytest.approx(of_product.singular_values[:3], rel=1e-4)
    for one, other in zip(of_factors.points_after, of_product.points_after, strict=True):
        assert one == pytest.approx(other, abs=1e-4)
    assert of_factors.shares[0].value == pytest.approx(of_product.shares[0].value, rel=1e-4)


@pytest.mark.parametrize("shape", [(60, 45), (45, 60)])
@pytest.mark.parametrize("is_flat", [False, True])
def test_a_large_matrix_is_as_exact(
    shape: tuple[int, int], is_flat: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    if not is_flat:
        weight[:, :2] *= torch.tensor([9.0, 5.0])
    exact = torch.linalg.svdvals(weight.double())
    monkeypatch.setattr(planes, "_MOST_EXACT", 4)
    found = find_spectrum(as_map(weight), 4)
    assert found.values[:2].tolist() == pytest.approx(exact[:2].tolist(), rel=1e-4)
    image = weight @ found.right[:, :2]
    assert torch.allclose(image, found.left[:, :2] * found.values[:2].float(), atol=0.05)


def test_a_map_of_rank_one_or_zero_has_a_plane_too() -> None:
    weight = torch.zeros(3, 3)
    nothing = view_map(as_map(weight), torch.ones(2, 3), "ab")
    assert nothing.matrix == ((0, 0), (0, 0))
    assert [share.value for share in nothing.shares if share.reason] == [None, None]
    weight[2, 0] = 5
    view = view_map(as_map(weight), torch.ones(2, 3), "ab")
    assert view.matrix[0][0] == pytest.approx(5)
    assert view.shares[0].value == pytest.approx(1)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "gemma2", "opt", "bert"])
def test_points_after_are_what_the_model_computes(family: str) -> None:
    subject = subject_of(family)
    for fact in list_maps(subject, 1):
        if fact.reason is not None:
            assert fact.name == "MLP gate"
            continue
        given = read_map(subject, 1, fact.name, 1 if fact.n_heads else None)
        points, labels = read_points(subject, given, IDS)
        assert points.shape == (len(labels), given.n_inputs)
        assert len(labels) == len(IDS) - (family != "bert")
        view = view_map(given, points, labels)
        for before, after in zip(view.points_before, view.points_after, strict=True):
            moved = [sum(m * b for m, b in zip(row, before, strict=True)) for row in view.matrix]
            assert after == pytest.approx(moved, abs=1e-4)
