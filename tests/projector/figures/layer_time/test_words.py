"""What the viewer says of a layer-time."""

from __future__ import annotations

from typing import Any

from projector.figures.layer_time.words import facts_of, neighbours_said
from tests.projector.figures.layer_time.made import two_prompts


def report_with(*random: float | None) -> dict[str, Any]:
    """Frames whose neighbours kept are 0.7, beside these random projections."""
    report, _ = two_prompts()
    for each, value in zip(report["fidelity"], random, strict=True):
        each["neighbours_random"] = value
    return report


def test_frames_that_are_no_better_than_a_random_projection_are_named() -> None:
    assert neighbours_said(report_with(0.6, 0.6, 0.6, 0.6)) == ""
    one, two = report_with(0.8, 0.6, 0.6, 0.6), report_with(0.6, 0.7, 0.6, 0.9)
    assert neighbours_said(one).startswith("At embedding ")
    assert neighbours_said(two).startswith("At layer 0 and layer 2 ")
    assert neighbours_said(two) in facts_of(two)
    # What an earlier version saved does not know it.
    assert neighbours_said(report_with(None, None, None, None)) == ""
    old = report_with(0.8, 0.8, 0.8, 0.8)
    for each in old["fidelity"]:
        del each["neighbours_random"]
    assert neighbours_said(old) == ""
    many = old | {"fidelity": one["fidelity"] * 6 + two["fidelity"]}
    assert neighbours_said(many).startswith("In 8 of 28 frames ")
