"""What a page asks of a contrast reaches the library as it was typed, and errors name no folder."""

from __future__ import annotations

import json

import pytest

from dashboard.contrast.orders import ContrastOrder, Typed, problems_of, sets_id
from dashboard.drawing.text import page_text


def _lines(word: str, n: int = 12) -> str:
    return "\n".join(f"{word} {k}" for k in range(n))


def _order(positive: str, negative: str, *, is_json: bool = False) -> ContrastOrder:
    return ContrastOrder(
        positive=Typed("Set A", positive, is_json=is_json), negative=Typed("Set B", negative)
    )


def test_names_of_sets_are_names_of_files() -> None:
    assert Typed("code", "").file_name == "code.txt"
    assert Typed("../../etc/pass wd", "", is_json=True).file_name == "etc pass wd.jsonl"
    assert Typed("<b>/", "").file_name == "b.txt"
    assert Typed("..", "").file_name == "prompts.txt"


@pytest.mark.parametrize(
    ("positive", "negative", "settings", "problem"),
    [
        ("", _lines("b"), ["positive"], "no prompt"),
        ("one", _lines("b"), ["positive"], "1 prompt"),
        (_lines("b"), "one", ["negative"], "1 prompt"),
        (_lines("b"), _lines("b"), ["positive"], " 12 "),
        ("", "one", ["positive", "negative"], "no prompt"),
        (_lines("a"), _lines("b"), [], ""),
    ],
)
def test_every_set_that_is_wrong_is_named_and_what_is_typed_is_no_file(
    positive: str, negative: str, settings: list[str], problem: str
) -> None:
    found = problems_of(_order(positive, negative))
    assert [each.setting for each in found] == settings
    for each in found:
        said = page_text(each)
        assert "/" not in said
        assert ".txt'" not in said
        assert said.startswith("Set A" if each.setting == "positive" else "Set B")
    assert not found or problem in page_text(found[0])


def test_a_line_that_is_no_json_is_named() -> None:
    (error,) = problems_of(_order('"a"\n{', _lines("b"), is_json=True))
    assert error.setting == "positive"
    assert page_text(error).startswith("Set A, line 2 ")
    # One that was uploaded is a file, and is called by its name.
    uploaded = Typed("given", '"a"\n{', is_json=True, is_file=True)
    (error,) = problems_of(ContrastOrder(positive=uploaded, negative=Typed("Set B", _lines("b"))))
    assert page_text(error).startswith("Set A 'given.jsonl' line 2 ")


def test_an_order_goes_through_json_and_has_an_id_of_its_own() -> None:
    orders = [
        _order("a", "b"),
        _order("a", "c"),
        _order("a", "b", is_json=True),
        ContrastOrder(pair="negation"),
        ContrastOrder(pair="negation", at="mean"),
        ContrastOrder(pair="negation", keep_outliers=True),
    ]
    for order in orders:
        again = ContrastOrder.of_record(json.loads(json.dumps(order.to_record())))
        assert (again, again.id) == (order, order.id)
    assert len({order.id for order in orders}) == len(orders)
    assert len({order.words for order in orders[3:]}) == 3
    assert sets_id(Typed("A", "x"), Typed("B", "y")) != sets_id(Typed("A", "y"), Typed("B", "x"))
