"""What a map may be used for, in words: shares worked by hand."""

from __future__ import annotations

import pytest

from projector.projection.verdict import kept_words, verdict
from tests.refused import lacking


def figures(kept: float | None, chance: float | None = 0.013) -> dict[str, object]:
    return {"neighbour_overlap": kept, "chance_overlap": chance, "reasons": {}}


def test_words_have_chance_beside_them() -> None:
    assert lacking(kept_words(figures(0.12)), "1.2 of 10 neighbours", "chance 0.1") == []
    assert "chance" not in kept_words(figures(0.12, None))


@pytest.mark.parametrize(
    ("kept", "objective", "use"),
    [
        (0.02, "stress", "random"),
        (0.12, "stress", "large shape"),
        (0.12, "neighbours", "larger groups"),
        (0.12, "positions of another program", "large shape"),
        (0.3, "neighbours", "groups"),
        (0.8, "neighbours", "most neighbours"),
    ],
)
def test_more_neighbours_serve_for_more(kept: float, objective: str, use: str) -> None:
    found = verdict(figures(kept), objective)
    assert found.startswith(kept_words(figures(kept)) + ": ")
    assert use in found


def test_what_chance_gives_counts_for_nothing() -> None:
    assert "random" in verdict(figures(0.5, 0.5), "stress")
    # Eleven neurons: everyone is a neighbour of everyone.
    assert "most neighbours" in verdict(figures(1.0, 1.0), "stress")


def test_groups_that_halves_of_the_corpus_do_not_agree_on_are_not_to_be_trusted() -> None:
    agreed = verdict({**figures(0.36), "stability": 0.3}, "neighbours")
    assert agreed == verdict(figures(0.36), "neighbours")
    found = verdict({**figures(0.36), "stability": 0.12}, "neighbours")
    assert lacking(found, kept_words(figures(0.36)), "only 1.2", "tokens") == []
    # A map that keeps few is judged by that alone.
    few = figures(0.12)
    assert verdict({**few, "stability": 0.12}, "stress") == verdict(few, "stress")


def test_an_unknown_figure_gives_its_reason() -> None:
    reason = "correlations were not kept"
    unknown = {**figures(None), "reasons": {"neighbour_overlap": reason}}
    assert verdict(unknown, "stress").endswith(reason)
