"""Parts of a logit as bars: the largest ones, in order, and the rest, which closes the sum."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dashboard.residual.logit_bars import part_bars_of
from projector.residual.logits.records import AttributedPart


def part(name: str, value: float, kind: str = "head") -> AttributedPart:
    return AttributedPart(name, kind, 0, None, None, value)


PARTS = [part("a", 0.5), part("b", -2.0), part("c", 1.0), part("d", 0.1), part("e", -0.2)]


def test_the_largest_stand_in_order_and_the_rest_closes_the_sum() -> None:
    found = part_bars_of(PARTS, n_shown=3)
    assert [each.bar.name for each in found] == ["c", "a", "b", "2 others"]
    assert [each.bar.value for each in found] == ["+1.00", "+0.50", "−2.00", "−0.10"]
    assert [each.bar.share for each in found] == pytest.approx([0.5, 0.25, -1.0, -0.05])
    assert found[-1].part is None
    # All of them: no rest.
    assert len(part_bars_of(PARTS, n_shown=5)) == 5


def test_what_is_chosen_is_shown_however_small_it_is() -> None:
    found = part_bars_of(PARTS, n_shown=2, is_chosen=lambda each: each.name == "d")
    assert [each.bar.name for each in found] == ["c", "d", "b", "2 others"]
    assert [each.bar.is_selected for each in found] == [False, True, False, False]


def test_all_other_neurons_have_no_bar_of_their_own() -> None:
    others = part("other neurons", 9.0, "other neurons")
    found = part_bars_of([*PARTS, others], n_shown=5)
    assert [each.bar.name for each in found][-1] == "all others"
    assert found[-1].bar.value == "+9.00"


def test_a_bar_tells_what_the_part_adds_to_other_tokens() -> None:
    controlled = replace(part("a", 1.0), control_mean=-0.1, control_sd=0.3)
    (found,) = part_bars_of([controlled])
    assert "−0.1 ± 0.3" in found.bar.tip
    # And without pointing at it: its ends on the scale of the bars.
    assert found.bar.control == pytest.approx((-0.4, 0.2))
    assert part_bars_of([part("b", 1.0)])[0].bar.control == ()


def test_no_parts_are_no_bars() -> None:
    assert part_bars_of([]) == []
