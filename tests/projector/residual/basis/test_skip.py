"""The stream, what is added and their sum lie in one plane."""

from __future__ import annotations

import pytest
import torch

from projector.errors import SettingError
from projector.residual.basis.skip import ColumnSpace, describe_sum, view_skip
from projector.residual.contributions import collect_contributions
from tests.families import PARALLEL, subject_of

IDS = [5, 6, 7, 8, 9]


def test_by_hand() -> None:
    x, added = torch.tensor([0.0, 3, 0, 4]), torch.tensor([2.0, 3, 0, 4])
    axes = torch.tensor([[0.0, 1, 0, 0], [1, 0, 0, 0]]).T
    view = describe_sum(x, added, spaces=[ColumnSpace("a plane", axes)])
    own, other, total = view.plane.arrows
    assert (own.x, own.y) == pytest.approx((5, 0))
    assert (other.x, other.y) == pytest.approx((5, 2))
    assert (total.x, total.y, total.length) == pytest.approx((10, 2, 104**0.5))
    assert view.off_plane < 1e-12
    assert view.cosine == pytest.approx(25 / (5 * 29**0.5))
    # 9 of 25 lie along the second coordinate, none along the first.
    share = view.shares[0]
    assert share.value == pytest.approx(9 / 25)
    # A random plane of four dimensions holds half; its share is uniform.
    assert (share.control, share.control_low, share.control_high) == pytest.approx(
        (0.5, 0.05, 0.95)
    )


def test_vectors_on_one_line_and_of_no_length() -> None:
    x = torch.tensor([1.0, 2, 2])
    line = describe_sum(x, -2 * x)
    assert [(a.x, a.y) for a in line.plane.arrows] == [
        pytest.approx(each, abs=1e-9) for each in ((3, 0), (-6, 0), (-3, 0))
    ]
    assert line.cosine == pytest.approx(-1)
    assert describe_sum(x, 0 * x).cosine is None


def test_a_column_space_that_is_the_whole_stream_has_a_note_and_no_shares() -> None:
    x = torch.tensor([1.0, 2, 2])
    view = describe_sum(x, x.flip(0), spaces=[ColumnSpace("W_O's column space", torch.eye(3))])
    assert view.shares == view.plane.shares == ()
    assert any(note.startswith("W_O's column space ") for note in view.plane.notes)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "gemma2", "opt", "bert"])
def test_in_a_model(family: str) -> None:
    subject = subject_of(family)
    whole = view_skip(subject, IDS, 1, 2)
    block = collect_contributions(subject, IDS, [2]).blocks[1]
    assert whole.plane.arrows[0].length == pytest.approx(float(block.pre.norm()), rel=1e-5)
    assert (whole.closure_error is None) == (family in PARALLEL)
    if block.mid is not None:
        assert whole.plane.arrows[2].length == pytest.approx(float(block.mid.norm()), rel=1e-5)
    assert whole.off_plane < 1e-9
    head = view_skip(subject, IDS, 1, 2, head=1)
    assert head.plane.arrows[1].length == pytest.approx(float(block.heads()[0, 1].norm()), rel=1e-4)
    of_x, of_added, _ = head.shares
    # All that a head adds lies in its column space; of x a share as of a random subspace.
    assert of_added.value == pytest.approx(1, abs=1e-6)
    assert of_x.value is not None
    assert of_x.control == pytest.approx(1 / 3 if family == "gemma2" else 1 / 4)
    assert 0 < of_x.value < 0.8


def test_wrong_choices() -> None:
    subject = subject_of("gpt2")
    with pytest.raises(SettingError) as raised:
        view_skip(subject, IDS, 1, head=4)
    assert (raised.value.setting, raised.value.value) == ("head", 4)
    with pytest.raises(SettingError) as raised:
        view_skip(subject, IDS, 1, 5)
    assert raised.value.setting == "position"
