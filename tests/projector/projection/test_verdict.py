"""What a map may be used for, in words: shares worked by hand."""

from __future__ import annotations

import pytest

from projector.projection.verdict import kept_words, verdict


def figures(kept: float | None, chance: float | None = 0.013) -> dict[str, object]:
    return {"neighbour_overlap": kept, "chance_overlap": chance, "reasons": {}}


def test_words_have_chance_beside_them() -> None:
    assert kept_words(figures(0.12)) == "1.2 of 10 neighbours kept; chance 0.1"
    assert kept_words(figures(0.12, None)) == "1.2 of 10 neighbours kept"


@pytest.mark.parametrize(
    ("kept", "objective", "use"),
    [
        (0.02, "stress", "a random map"),
        (0.12, "stress", "large shape only"),
        (0.12, "neighbours", "larger groups only"),
        (0.12, "positions of another program", "large shape only"),
        (0.3, "neighbours", "trust its groups"),
        (0.8, "neighbours", "most neighbours"),
    ],
)
def test_more_neighbours_serve_for_more(kept: float, objective: str, use: str) -> None:
    found = verdict(figures(kept), objective)
    assert found.startswith(kept_words(figures(kept)) + ": ")
    assert use in found


def test_what_chance_gives_counts_for_nothing() -> None:
    assert "a random map" in verdict(figures(0.5, 0.5), "stress")
    # Eleven neurons: everyone is a neighbour of everyone.
    assert "most neighbours" in verdict(figures(1.0, 1.0), "stress")


def test_an_unknown_figure_gives_its_reason() -> None:
    unknown = {**figures(None), "reasons": {"neighbour_overlap": "correlations were not kept"}}
    assert verdict(unknown, "stress").endswith("correlations were not kept")
