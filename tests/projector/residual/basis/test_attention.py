"""Values and their mixtures in a plane, by hand and in models of every kind."""

from __future__ import annotations

import pytest
import torch

from projector.errors import SettingError
from projector.residual.basis.attention import describe_mixing, view_attention
from tests.families import subject_of

PATTERN = torch.tensor([[1.0, 0.0], [0.25, 0.75]])


def test_values_that_differ_by_rounding_have_no_variance() -> None:
    # The first block reads the embeddings, which are alike.
    variance, length = view_attention(subject_of("llama"), [5, 5, 5, 5], 0, 1).shares
    assert (variance.value, variance.control) == (None, None)
    assert variance.reason is not None
    assert length.value == pytest.approx(1)
    for each in describe_mixing(0, 0, ("a", "b"), PATTERN, torch.zeros(2, 2)).shares:
        assert each.value is None
        assert each.reason is not None


def test_two_tokens() -> None:
    values = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    view = describe_mixing(0, 0, ("a", "b"), PATTERN, values)
    plane = view.plane
    before = torch.tensor(plane.points_before) * plane.point_unit
    after = torch.tensor(plane.points_after) * plane.point_unit
    assert torch.allclose(before, torch.tensor([[2.0, 0.0], [0.0, 1.0]]))
    # The second row is a quarter of the first value and three quarters of its own.
    assert torch.allclose(after, torch.tensor([[2.0, 0.0], [0.5, 0.75]]))
    assert view.pattern == ((1, 0), (0.25, 0.75))
    spread, length = view.shares
    # Distances to the mean: 1.25 · 2 before, (0.75² + 0.375²) · 2 after.
    assert spread.value == pytest.approx(2 * (0.75**2 + 0.375**2) / 2.5)
    assert length.value == pytest.approx((4 + 0.25 + 0.5625) / 5)
    # The first row sees itself alone: shuffled, it stays, and the second is one of two.
    swapped = 2 * ((0.25**2) + (0.125**2)) / 2.5
    assert spread.control_low == pytest.approx(swapped)
    assert spread.control_high == pytest.approx(spread.value)
    assert plane.shares[0].value == pytest.approx(1)


def test_a_causal_pattern_takes_from_no_later_token_when_shuffled() -> None:
    values = torch.tensor([[0.0, 0.0], [0.0, 0.0], [5.0, 0.0]])
    pattern = torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0], [1, 0, 0]])
    length = describe_mixing(0, 0, ("a", "b", "c"), pattern, values).shares[1]
    # The last token alone may take from the last value, so 1 is the most.
    assert length.value == 0
    assert length.control_high == pytest.approx(1)
    assert length.control is not None
    assert 0.2 < length.control < 0.5


def test_values_that_are_alike_have_no_spread() -> None:
    view = describe_mixing(0, 0, ("a", "b"), PATTERN, torch.ones(2, 3))
    assert view.shares[0].value is None
    assert view.shares[0].reason
    nothing = describe_mixing(0, 0, ("a", "b"), PATTERN, torch.zeros(2, 3))
    assert [share.value for share in (*nothing.shares, *nothing.plane.shares)] == [None] * 5


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "gemma2", "opt", "bert", "phi3"])
def test_mixtures_are_what_the_head_gives(family: str) -> None:
    subject = subject_of(family)
    view = view_attention(subject, [5, 6, 7, 8, 9], 1, 2)
    assert view.closure_error < 1e-5
    pattern = torch.tensor(view.pattern, dtype=torch.float64)
    before = torch.tensor(view.plane.points_before, dtype=torch.float64)
    after = torch.tensor(view.plane.points_after, dtype=torch.float64)
    # To mix and to look at a plane can change places.
    assert torch.allclose(pattern @ before, after, atol=1e-6)
    assert bool(pattern.triu(1).any()) == (family == "bert")


def test_a_head_that_is_not_there() -> None:
    with pytest.raises(SettingError) as raised:
        view_attention(subject_of("llama"), [5, 6], 0, 4)
    assert (raised.value.setting, raised.value.value) == ("head", 4)
