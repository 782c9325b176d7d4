"""The legend of signs in labels."""

from __future__ import annotations

import pytest

from projector.naming.legend import signs_in


@pytest.mark.parametrize(
    ("label", "signs"),
    [
        ("self", []),
        ("↓", []),
        ("after “␣×7”", ["after “a”", "␣", "␣×7"]),
        ("⏎ new line ↓", ["↓", "⏎"]),
        ("(self … ↓", ["↓", "…"]),
        ("of · to", ["·"]),
        ("II · .util · ub (mixed)", ["(mixed)", "·"]),
        ("LongName…", ["…"]),
    ],
)
def test_signs_that_occur_are_explained(label: str, signs: list[str]) -> None:
    found = signs_in(["self", label])
    assert [sign for sign, _ in found] == signs
    assert all(meaning for _, meaning in found)


def test_an_ellipsis_after_a_space_differs_from_that_of_a_cut_word() -> None:
    (among_others,), (cut,) = signs_in(["a …"]), signs_in(["Long…"])
    assert among_others != cut
    assert signs_in(["Long…", "a …"]) == (among_others, cut)
