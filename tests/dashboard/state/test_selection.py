"""The selection: what is forgotten, and that a link gives back what it was made of."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import parse_qsl, urlencode

import numpy as np
import pytest

from dashboard.state.selection import (
    Selection,
    grouping_text,
    parse_grouping,
    parse_neuron,
    parse_runs,
    runs_text,
)
from pruning.poles.poles import SELECTIONS, SPACES, PoleSettings
from tests.refused import refused_naming

FULL = Selection(
    projection="runs/demo",
    model="models/other",
    layer=3,
    site="mlp_post",
    neuron=345,
    pole=2,
    prompt="0123456789abcdef",
    other="fedcba9876543210",
    token=7,
    report="sweep-1",
    marked=(3, 4, 5, 12),
    grouping="correlation,5,leaf,0.1",
    layout="stress-3d",
    color="mean",
    order="tree",
    isolate=345,
    head=5,
    target=1234,
    against=0,
    reading=7,
    part="attention",
    map="W_OV",
    plane="same",
)


@pytest.mark.parametrize(
    ("changes", "forgotten"),
    [
        (
            {"projection": "else"},
            {"model", "layout", "layer", "site", "neuron", "head", "pole", "marked", "isolate"}
            | {"target", "against", "reading"},
        ),
        ({"layer": 4}, {"neuron", "head", "pole", "marked", "isolate"}),
        ({"site": "attn_out"}, {"neuron", "pole", "marked", "isolate"}),
        ({"grouping": None}, {"pole"}),
        ({"prompt": "1" * 16}, {"token", "target", "against", "reading"}),
        ({"neuron": 1}, set()),
        ({"pole": 1}, set()),
        ({"model": None}, {"target", "against", "reading"}),
        ({"token": 3}, set()),
        ({"head": 1}, set()),
        ({"report": None}, set()),
        ({"marked": ()}, set()),
    ],
)
def test_what_depends_on_a_choice_is_forgotten_with_it(
    changes: dict[str, object], forgotten: set[str]
) -> None:
    found = FULL.but(**changes)
    empty = Selection()
    expected = replace(FULL, **{name: getattr(empty, name) for name in forgotten}, **changes)
    assert found == expected


def test_choosing_the_same_again_forgets_nothing() -> None:
    assert FULL.but(projection="runs/demo", layer=3, site="mlp_post", prompt=FULL.prompt) == FULL


def test_what_is_given_with_a_choice_is_kept() -> None:
    found = FULL.but(layer=4, neuron=9, marked=(1,))
    assert (found.layer, found.neuron, found.marked, found.pole) == (4, 9, (1,), None)


def random_selection(rng: np.random.Generator) -> Selection:
    """Any, names with every kind of sign among them."""

    def name() -> str:
        signs = list("abc/ ._-&=?#%+<>\"'é✓🙂\\:,;")
        return "x" + "".join(rng.choice(signs, rng.integers(0, 12)))

    def maybe(value: object) -> object:
        return value if rng.random() < 0.7 else None

    number = lambda: int(rng.integers(0, 10**9 - 1))  # noqa: E731
    grouping = PoleSettings(
        str(rng.choice(SPACES)),
        int(rng.integers(2, 51)),
        None,
        str(rng.choice(SELECTIONS)),
        float(rng.integers(0, 101)) / 100,
    )
    n_marked = int(rng.integers(0, 60))
    marked = tuple(sorted(set(rng.integers(0, 200, n_marked).tolist())))
    return Selection(
        **{
            key: maybe(name())
            for key in (
                *("projection", "model", "site", "report", "layout", "color", "order"),
                *("part", "map", "plane"),
            )
        },  # type: ignore[arg-type]
        **{
            key: maybe(number())
            for key in (
                *("layer", "neuron", "pole", "token", "isolate"),
                *("head", "target", "against", "reading"),
            )
        },  # type: ignore[arg-type]
        **{key: maybe(f"{number():016x}") for key in ("prompt", "other")},  # type: ignore[arg-type]
        marked=marked,
        grouping=grouping_text(grouping),
    )


def test_a_link_gives_back_any_selection() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        selection = random_selection(rng)
        params = selection.params()
        assert all(isinstance(value, str) and value for value in params.values())
        # As it stands in a browser's address.
        assert Selection.of_params(dict(parse_qsl(urlencode(params)))) == selection


def test_nothing_chosen_makes_an_empty_link() -> None:
    assert Selection().params() == {}
    assert Selection.of_params({}) == Selection()


def test_the_settings_of_poles_go_through_a_link() -> None:
    rng = np.random.default_rng(1)
    assert grouping_text(PoleSettings()) is None
    for _ in range(100):
        settings = PoleSettings(
            str(rng.choice(SPACES)),
            int(rng.integers(2, 51)),
            None,
            str(rng.choice(SELECTIONS)),
            float(rng.integers(0, 101)) / 100,
        )
        assert parse_grouping(grouping_text(settings)) == settings


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "correlation",
        "correlation,5,leaf",
        "correlation,5,leaf,0.1,9",
        "moon,5,leaf,0.1",
        "correlation,x,leaf,0.1",
        "correlation,1,leaf,0.1",
        "correlation,-5,leaf,0.1",
        "correlation,5,root,0.1",
        "correlation,5,leaf,nan",
        "correlation,5,leaf,inf",
        "correlation,5,leaf,-1",
        # What no widget of the page can show.
        "correlation,1000000,leaf,0.1",
        "correlation,51,leaf,0.1",
        "correlation,5,leaf,1.5",
    ],
)
def test_settings_of_poles_that_can_not_be_are_the_usual_ones(text: str | None) -> None:
    assert parse_grouping(text) == PoleSettings()


@pytest.mark.parametrize(
    "text",
    ["", "-1", "1.5", "1e3", " 3", "3 ", "+3", "0x10", "٣", "³", "３", "9" * 10, "9" * 300, "NaN"],
)
@pytest.mark.parametrize("name", ["layer", "neuron", "pole", "token"])
def test_a_number_that_is_none_is_left_out(name: str, text: str) -> None:
    assert Selection.of_params({name: text, "site": "mlp_post"}) == Selection(site="mlp_post")


def test_names_that_are_far_too_long_are_left_out() -> None:
    assert Selection.of_params({"projection": "x" * 100_000, "layer": "1"}) == Selection(layer=1)


def test_what_a_link_holds_and_can_not_be_read_is_told() -> None:
    params = {"layer": "-1", "neuron": "3", "marked": "x", "projection": "y" * 999, "evil": "1"}
    assert set(Selection.unreadable(params)) == {"layer", "marked", "projection"}
    assert Selection.unreadable(FULL.params()) == {}


def test_unknown_parameters_are_left_out() -> None:
    assert Selection.of_params({"evil": "1", "__class__": "x", "layer": "2"}) == Selection(layer=2)


@pytest.mark.parametrize(
    "text", ["a", "1,a", "-1", "1--2", "1-2-3", "1,,2", "٣", "1 2", "99999999", "1;2", ",", "-"]
)
def test_marks_that_can_not_be_read_are_none(text: str) -> None:
    assert parse_runs(text) == ()


def test_marks_that_name_countless_neurons_are_none() -> None:
    whole = "0-99999"
    assert len(parse_runs(whole)) == 100_000
    for text in ("0-9999999", "0-100000", f"{whole},100000", ",".join([whole] * 150)):
        assert parse_runs(text) == ()


def test_runs_are_those_of_the_numbers() -> None:
    assert runs_text((3, 4, 5, 6, 7, 12)) == "3-7,12"
    assert parse_runs("3-7,12") == (3, 4, 5, 6, 7, 12)
    assert parse_runs("12,3-7,5") == (3, 4, 5, 6, 7, 12)
    assert runs_text(()) == ""


def test_of_too_many_marks_a_link_holds_the_first() -> None:
    marked = tuple(range(0, 4000, 2))
    text = runs_text(marked)
    kept = parse_runs(text)
    assert len(text) <= 1500
    assert 300 < len(kept) < len(marked)
    assert kept == marked[: len(kept)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("L3 N345", (3, 345)),
        ("l3n345", (3, 345)),
        ("  L3   N345  ", (3, 345)),
        ("layer 3 neuron 345", (3, 345)),
        ("Layer 3, neuron 345", (3, 345)),
        ("3/345", (3, 345)),
        ("3 345", (3, 345)),
        ("3:345", (3, 345)),
        ("N345 L3", (3, 345)),
        ("neuron 345 layer 3", (3, 345)),
        ("345", (None, 345)),
        ("N345", (None, 345)),
        ("#345", (None, 345)),
        ("n 0", (None, 0)),
    ],
)
def test_a_neuron_is_found_by_the_names_it_goes_by(
    text: str, expected: tuple[int | None, int]
) -> None:
    assert parse_neuron(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "L3", "layer 3", "L3 L4", "N3 N4", "1 2 3", "L3 N", "x", "-5", "L-1 N5", "٣", "9" * 11,
     "L3 N5 x", "3e2", "0.345", "3.345", "L3.345", "L N", "<script>"],
)  # fmt: skip
def test_what_names_no_neuron_is_refused_in_one_line(text: str) -> None:
    with refused_naming("L3 N345"):
        parse_neuron(text)


def test_a_search_as_long_as_a_book_is_not_said_back() -> None:
    with refused_naming("L3 N345") as refused:
        parse_neuron("x" * 100_000)
    assert len(str(refused.value)) < 300
