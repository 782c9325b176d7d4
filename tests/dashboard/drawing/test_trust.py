"""What a person is told of a map, from the figures that it was saved with."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dashboard.drawing.trust import trust_figures
from pruning.poles.poles import Poles, PoleSettings

FIGURES: dict[str, Any] = {
    "neighbour_overlap": 0.614,
    "chance_overlap": 0.013,
    "stress": 0.08349,
    "stability": 0.25,
    "reasons": {},
}


def poles(noise_share: float | None) -> Poles:
    labels = torch.full((4,), -1)
    return Poles(
        0, "mlp_post", PoleSettings(), labels, torch.zeros(4), (), (), noise_share, None, {}
    )


def test_figures_are_said_in_words() -> None:
    found = {each.name: each for each in trust_figures(FIGURES, poles(0.126), 3)}
    assert {name: each.value for name, each in found.items()} == {
        "Neighbours kept": "6.1 of 10",
        "Stress": "0.083",
        "Stability": "2.5 of 10",
        "In no pole": "13%",
    }
    assert "0.1" in found["Neighbours kept"].meaning
    assert "3 dimensions" in found["Stress"].meaning


@pytest.mark.parametrize("name", ["neighbour_overlap", "stress", "stability"])
def test_a_figure_that_is_not_known_says_why(name: str) -> None:
    figures = FIGURES | {name: None, "reasons": {name: "its own reason"}}
    plain = trust_figures(FIGURES, poles(0.1), 2)
    found = trust_figures(figures, poles(0.1), 2)
    changed = [(a, b) for a, b in zip(plain, found, strict=True) if a != b]
    assert len(changed) == 1
    assert changed[0][1].value == "–"
    assert figures["reasons"][name] in changed[0][1].meaning


def test_nothing_known_is_no_number() -> None:
    empty = dict.fromkeys(("neighbour_overlap", "chance_overlap", "stress", "stability"))
    for figures in ({}, empty | {"reasons": None}):
        for known in (None, poles(None)):
            found = trust_figures(figures, known, 3)
            assert [each.value for each in found] == ["–"] * 4
            assert all(each.meaning for each in found)


def test_nothing_kept_is_said_as_such() -> None:
    """Nought is a number, and not one that is lacking."""
    found = trust_figures(FIGURES | {"neighbour_overlap": 0.0, "stress": 0.0}, poles(0.0), 3)
    assert [each.value for each in found] == ["0.0 of 10", "0.000", "2.5 of 10", "0%"]


def test_a_map_without_a_matrix_says_what_its_sample_costs() -> None:
    sample = {"n_tokens": 37_887, "n_corpus_tokens": 500_000, "n_pairs": 9, "measured": 0.00512}
    found = trust_figures(FIGURES | {"sample": sample}, poles(0.1), 3)[-1]
    assert (found.name, found.value) == ("Sampling error of ρ", "±0.0051")
    assert "37,887 of 500,000 tokens" in found.meaning
    unknown = trust_figures(FIGURES | {"sample": sample | {"measured": None}}, poles(0.1), 3)[-1]
    assert unknown.value == "–"
