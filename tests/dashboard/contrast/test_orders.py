"""What a page asks of a contrast reaches the library as it was typed, and errors name no folder."""

from __future__ import annotations

import pytest

from dashboard.contrast.orders import ContrastOrder, Typed, check_order
from projector.errors import UserError


def _lines(word: str, n: int = 12) -> str:
    return "\n".join(f"{word} {k}" for k in range(n))


def test_names_of_sets_are_names_of_files() -> None:
    assert Typed("code", "").file_name == "code.txt"
    assert Typed("../../etc/pass wd", "", is_json=True).file_name == "etc pass wd.jsonl"
    assert Typed("<b>/", "").file_name == "b.txt"
    assert Typed("..", "").file_name == "prompts.txt"


@pytest.mark.parametrize(
    ("positive", "problem"),
    [
        ("", "holds no prompt"),
        ("one", "holds 1 prompt"),
        (_lines("b"), "12 that are in both sets"),
    ],
)
def test_an_error_names_the_set_and_no_folder(positive: str, problem: str) -> None:
    order = ContrastOrder(positive=Typed("Set A", positive), negative=Typed("Set B", _lines("b")))
    with pytest.raises(UserError) as caught:
        check_order(order)
    assert caught.value.setting == "positive"
    assert problem in str(caught.value)
    assert "/" not in str(caught.value)


def test_a_line_that_is_no_json_is_named() -> None:
    order = ContrastOrder(
        positive=Typed("given", '"a"\n{', is_json=True), negative=Typed("Set B", _lines("b"))
    )
    with pytest.raises(UserError, match=r"given\.jsonl' line 2 is not JSON") as caught:
        check_order(order)
    assert caught.value.setting == "positive"
