"""What the viewer says of a layer-time."""

from __future__ import annotations

from typing import Any

from projector.figures.layer_time.words import facts_of, moves_said, neighbours_said
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
    assert neighbours_said(one).startswith("At the embedding (0.70 compared with 0.80) ")
    assert neighbours_said(two).startswith(
        "At layer 0 and layer 2 (worst: layer 2, 0.70 compared with 0.90) "
    )
    assert neighbours_said(two) in facts_of(two)
    # What an earlier version saved does not know it.
    assert neighbours_said(report_with(None, None, None, None)) == ""
    old = report_with(0.8, 0.8, 0.8, 0.8)
    for each in old["fidelity"]:
        del each["neighbours_random"]
    assert neighbours_said(old) == ""
    many = old | {"fidelity": one["fidelity"] * 6 + two["fidelity"]}
    assert neighbours_said(many).startswith(
        "In 8 of 28 frames (worst: layer 2, 0.70 compared with 0.90) "
    )


def test_frames_whose_moves_are_no_better_than_a_random_projection_are_named() -> None:
    report, _ = two_prompts()
    for each, (kept, random) in zip(
        report["fidelity"], ((None, None), (0.5, 0.5), (0.5, 0.4), (-0.19, 0.43)), strict=True
    ):
        each["displacement_correlation"], each["displacement_random"] = kept, random
    told = moves_said(report)
    assert told.startswith("At layer 0 and layer 2 (worst: layer 2, −0.19 compared with 0.43) ")
    assert told in facts_of(report)


def said(**changes: Any) -> str:
    """Of two prompts' difference."""
    report, _ = two_prompts()
    report["first_difference"] |= {"n_drawn": 20, "n_equal": 0, "stays": True, **changes}
    return " ".join(facts_of(report))


def test_equal_pairs_and_a_layer_that_does_not_stay_are_told() -> None:
    told = said()
    assert "Layer 1 " in told
    assert "equal and" not in told
    assert "every later layer" in told
    # Behind the last layer there is no later one.
    assert "later" not in said(per_frame=[{"layer": None}, {"layer": 1}])
    told = said(n_drawn=200, n_equal=180, stays=False)
    assert "200 drawn, 180 " in told
    assert "some later layers" in told


def test_a_layer_that_is_not_named_has_its_reason() -> None:
    nothing = {"frame": None, "layer": None, "stays": None, "chance": None, "null_high": None}
    told = said(**nothing, n_samples=0, n_drawn=200, n_equal=190, reason="190 of 200 are equal")
    assert "190 of 200" in told
    assert "Layer 1 " not in told


def test_a_change_that_is_no_larger_than_others_is_said_plainly_first() -> None:
    told = said(frame=None, layer=None, stays=None)
    assert told.index("other continuations") < told.index("95th percentile")
