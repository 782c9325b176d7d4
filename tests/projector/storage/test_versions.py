"""Files of older versions climb up step by step; others are refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from projector.projection import facts
from projector.projection import upgrades as projections
from projector.statistics import examples
from projector.storage.entries import Entry, Wrong
from projector.storage.versions import read_json, upgraded
from tests.refused import refused_naming

PATH = Path("thing.json")


def climb(content: Any, newest: int = 3) -> dict[str, Any]:
    return upgraded(
        content,
        PATH,
        format_name="thing",
        newest=newest,
        upgrades={
            1: lambda old: {**old, "format_version": 2, "steps": [1]},
            2: lambda old: {**old, "format_version": 3, "steps": [*old.get("steps", []), 2]},
        },
        remedy="make it again",
    )


def test_every_version_climbs_to_the_newest() -> None:
    assert climb({"format": "thing", "format_version": 1})["steps"] == [1, 2]
    assert climb({"format": "thing", "format_version": 2})["steps"] == [2]
    newest = {"format": "thing", "format_version": 3}
    assert climb(newest) == newest


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ({"format": "other", "format_version": 1}, "format & thing"),
        (["thing"], "format & thing"),
        ({"format": "thing", "format_version": 9}, "version 9 & up to"),
        ({"format": "thing", "format_version": 0}, "version 0"),
        ({"format": "thing", "format_version": "1"}, "format_version & '1'"),
        ({"format": "thing"}, "format_version & None"),
    ],
)
def test_what_has_no_way_up_is_refused_with_what_to_do(content: Any, names: str) -> None:
    with refused_naming("'thing.json'", *names.split(" & ")):
        climb(content)


def test_an_upgrade_that_misses_something_says_what() -> None:
    def broken(old: dict[str, Any]) -> dict[str, Any]:
        raise Wrong("layout is missing")

    with refused_naming("'thing.json'", "damaged", "layout"):
        upgraded(
            {"format": "thing", "format_version": 1},
            PATH,
            format_name="thing",
            newest=2,
            upgrades={1: broken},
            remedy="make it again",
        )


@pytest.mark.parametrize(
    "broken",
    [
        lambda old: old["layout"],
        lambda old: {**old, "n": old["format"]["n"]},
        lambda old: {**old, "n": int(old["format"])},
        lambda old: old["format_version"].items(),
    ],
)
def test_an_upgrade_that_trips_is_told_in_one_line(broken: Any) -> None:
    with refused_naming("'thing.json'", "damaged") as caught:
        upgraded(
            {"format": "thing", "format_version": 1},
            PATH,
            format_name="thing",
            newest=2,
            upgrades={1: broken},
            remedy="make it again",
        )
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("newest", "upgrades"),
    [
        (facts.FORMAT_VERSION, projections.UPGRADES),
        (facts.LAYOUT_FORMAT_VERSION, projections.LAYOUT_UPGRADES),
        (examples.FORMAT_VERSION, examples.UPGRADES),
    ],
    ids=["projection", "layout", "examples"],
)
def test_every_older_version_has_a_way_up(newest: int, upgrades: dict[int, Any]) -> None:
    assert sorted(upgrades) == list(range(1, newest))


@pytest.mark.parametrize("text", ["{", "", '{"a": NaN}', "[-Infinity]", "[" * 100_000, "\udcff"])
def test_what_is_not_json_is_told_in_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with refused_naming(path, "damaged", "JSON"):
        read_json(path)


ENTRY = Entry(
    {"text": "a", "count": 3, "yes": True, "null": None, "list": [1, 2], "object": {"x": "y"}}
)


def test_values_are_taken_as_what_they_are() -> None:
    assert ENTRY.text("text") == "a"
    assert ENTRY.count("count") == 3
    assert ENTRY.truth("yes")
    assert ENTRY.truth("missing", default=True)
    assert ENTRY.counts("list") == (1, 2)
    assert ENTRY.texts_by_name("object") == {"x": "y"}
    assert ENTRY.texts_by_name("missing") == {}
    assert ENTRY.maybe_number("count") == 3.0
    for maybe in (ENTRY.maybe_text, ENTRY.maybe_count, ENTRY.maybe_number, ENTRY.maybe_entry):
        assert maybe("null") is None
        assert maybe("missing") is None


@pytest.mark.parametrize(
    ("take", "names"),
    [
        (lambda: ENTRY.text("missing"), "^missing .*missing$"),
        (lambda: ENTRY.text("count"), "^count .*text"),
        (lambda: ENTRY.count("yes"), "^yes .*number"),
        (lambda: Entry({"n": -1}).count("n"), "^n .*number of 0"),
        (lambda: ENTRY.maybe_number("text"), "^text .*number"),
        (lambda: Entry({"n": float("inf")}).maybe_number("n"), "^n .*inf"),
        (lambda: ENTRY.truth("count"), "^count .*true.*false"),
        (lambda: ENTRY.texts("list"), "^list .*text"),
        (lambda: ENTRY.entry("list"), "^list .*object"),
        (lambda: ENTRY.entry("object").count("x"), r"^object\.x .*number"),
        (lambda: Entry([]), "object"),
    ],
)
def test_a_wrong_value_is_named(take: Any, names: str) -> None:
    with pytest.raises(Wrong, match=names):
        take()
