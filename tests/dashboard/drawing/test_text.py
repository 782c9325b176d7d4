"""Tokens as HTML: read back by a parser, nothing of them is markup."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from dashboard.drawing import palette
from dashboard.drawing.text import (
    Line,
    color_scale,
    colored_lines,
    colored_tokens,
    cut_label,
    joined_list,
    lettered_swatches,
    number,
    numbers,
    page_text,
    page_words,
    shares_list,
    tint_scale,
    tints,
)
from projector.errors import UserError, named
from projector.storage.resuming import Work, decide
from tests.refused import lacking

HOSTILE = (
    "<script>alert(1)</script>",
    "</span></div>",
    '" onmouseover="alert(1)',
    "' onload='x",
    "&lt;",
    "&amp;",
    "<!--",
    "a\n b",
    "]]>",
    "<",
)


class Reader(HTMLParser):
    """Elements and the text of each span."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "span":
            self.texts.append("")

    def handle_data(self, data: str) -> None:
        self.texts[-1] += data


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    return reader


def test_whatever_tokens_say_is_text() -> None:
    found = read(colored_tokens(HOSTILE, [0.5] * len(HOSTILE), 1.0, focus=1))
    assert found.texts == list(HOSTILE)
    assert [tag for tag, _ in found.elements] == ["div", *["span"] * len(HOSTILE)]
    assert {name for _, attributes in found.elements for name in attributes} == {"style", "title"}


def background(attributes: dict[str, str | None]) -> tuple[tuple[int, ...], int]:
    """Colour and opacity."""
    match = re.search(r"background:#(..)(..)(..)(..)", str(attributes["style"]))
    assert match is not None
    red, green, blue, strength = (int(part, 16) for part in match.groups())
    return (red, green, blue), strength


def test_colours_tell_sign_and_magnitude() -> None:
    values = [-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0]
    found = read(colored_tokens(["x"] * 7, values, 1.0))
    shown = [background(attributes) for tag, attributes in found.elements if tag == "span"]
    assert [attributes["title"] for tag, attributes in found.elements[1:]] == [
        number(v, ".3g") for v in values
    ]
    strengths = [strength for _, strength in shown]
    assert strengths == [200, 200, 100, 0, 100, 200, 200]
    table = [tuple(color) for color in palette.diverging().tolist()]
    assert [table.index(color) for color, _ in shown] == [1, 1, 64, 128, 192, 255, 255]


def test_only_the_focus_is_underlined() -> None:
    found = read(colored_tokens("abc", [1.0, 2.0, 3.0], 3.0, focus=2))
    styles = [str(attributes["style"]) for tag, attributes in found.elements if tag == "span"]
    assert ["border-bottom" in style for style in styles] == [False, False, True]


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        ("self", "self"),
        ("a longer label than that", "a longer label tha…"),
        ("and · unknown · < (mixed)", "and · unkn… (mixed)"),
        ("after a longer label than that ↓", "after a longer l… ↓"),
    ],
)
def test_what_qualifies_a_label_stays_where_it_is_cut(label: str, shown: str) -> None:
    assert cut_label(label, 18) == shown


def test_the_focus_keeps_its_space() -> None:
    found = read(colored_tokens([" a", " b", " " + "c" * 60], [1.0, 2.0, 3.0], 3.0, focus=1))
    styles = [str(attributes["style"]) for tag, attributes in found.elements if tag == "span"]
    assert ["white-space:pre;" in style for style in styles] == [False, True, False]
    # One that may be wider than its column is broken all the same.
    wide = read(colored_tokens([" " + "c" * 60], [1.0], 3.0, focus=0))
    assert "white-space:pre;" not in str(wide.elements[1][1]["style"])


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([0.23, -0.71, 1.234], ["+0.23", "−0.71", "+1.23"]),
        ([0.23, -0.0001], ["+0.230", "0.000"]),
        ([1234.0, -5.2], ["+1234", "−5"]),
        ([math.nan, 12.34], ["+nan", "+12.3"]),
        ([1e-9, -3e-9], ["+1e−09", "−3e−09"]),
        ([], []),
    ],
)
def test_numbers_below_one_another_have_the_same_decimals(
    values: list[float], shown: list[str]
) -> None:
    assert numbers(values) == shown


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("scale", [0.0, 1.0, math.nan, math.inf])
def test_numbers_that_are_none_are_shown_all_the_same(value: float, scale: float) -> None:
    found = read(colored_tokens(["a", "b"], [value, 0.0], scale))
    assert found.texts == ["a", "b"]
    first = found.elements[1][1]
    if math.isnan(value):
        # Nothing is known of it.
        assert first == {"style": ""}
    else:
        assert first["title"] == f"{value:.3g}".replace("-", "−")


def test_excerpts_stand_below_one_another_behind_their_heads() -> None:
    lines = [
        Line(f"{HOSTILE[0]} {k}", HOSTILE, [math.nan] * (len(HOSTILE) - 1) + [1.0], 2)
        for k in range(2)
    ]
    found = read(f"<span>{colored_lines(lines, 1.0)}</span>")
    tags = [tag for tag, _ in found.elements]
    assert tags.count("span") == 1 + 2 * len(HOSTILE)
    assert set(tags) == {"div", "span"}
    # Only what is known has a colour.
    is_colored = ["background" in str(a.get("style")) for t, a in found.elements if t == "span"]
    assert sum(is_colored) == 2


def test_a_scale_of_colours_names_its_ends() -> None:
    found = read(color_scale(HOSTILE[0], 0.25))
    assert found.texts[0] == HOSTILE[0]
    assert [text for text in found.texts if text][1:] == ["−0.25", "+0.25"]


def test_probable_tokens_have_bars_as_long_as_they_are_probable() -> None:
    page = shares_list([(HOSTILE[0], 0.5), (HOSTILE[1], 0.125)])
    assert re.findall(r"width:([\d.]+)%", page) == ["50.0", "12.5"]
    assert "<script" not in page


def test_no_tokens_make_an_empty_paragraph() -> None:
    assert read(colored_tokens([], [], 1.0)).texts == []
    with pytest.raises(ValueError, match=r"shorter|longer"):
        colored_tokens(["a"], np.zeros(2).tolist(), 1.0)


def test_numbers_have_a_minus() -> None:
    assert number(-0.5) == "−0.5"
    assert number(-1.25e-7, "+.3g") == "−1.25e−07"
    assert number(2.0, "+.1%") == "+200.0%"


def test_a_page_calls_settings_as_its_fields_are_called() -> None:
    error = UserError(
        f"{named('n_sequences')} is less than {named('min_cluster_size', 5)}; see "
        f"{named('memory_budget')} or {named('keep_statistics', True)}"
    )
    names = ("Calibration sequences", "Smallest pole: 5", "memory budget", "keep statistics: yes")
    assert lacking(error.worded(page_words), *names) == []


@pytest.mark.parametrize(
    ("unfinished", "finished", "resume", "setting"),
    [
        (
            Work("/data/tiny", "its seeds 2, not 3"),
            None,
            True,
            "resume",
        ),
        (
            Work("/data/tiny"),
            None,
            False,
            "resume",
        ),
        (
            None,
            Work("/data/tiny"),
            False,
            "force",
        ),
    ],
)
def test_a_page_gives_no_advice_that_it_can_not_follow(
    unfinished: Work | None, finished: Work | None, resume: bool, setting: str
) -> None:
    with pytest.raises(UserError) as refused:
        decide(unfinished, finished, resume=resume, force=False, what="sweep")
    assert refused.value.setting == setting
    text = page_text(refused.value)
    assert lacking(text, "'/data/tiny'", unfinished.difference or "" if unfinished else "") == []
    assert not re.search("resume|force", text)


def test_a_page_s_text_of_other_errors_is_all_of_them() -> None:
    error = UserError(f"{named('n_sequences', 4)} is too small: give more, or {named('epsilon')}")
    assert page_text(error) == error.worded(page_words)
    assert "force" not in page_text(UserError(named("force", True)))


def test_tints_are_the_stronger_the_more_and_none_for_no_number() -> None:
    found = tints([0.0, 0.25, 1.0, 7.0, -1.0, math.nan])
    assert [each == "" for each in found] == [True, False, False, False, True, True]
    assert found[2] == found[3]
    strengths = [int(each[-2:], 16) for each in found[1:3]]
    assert strengths[0] < strengths[1] < 255


def test_names_of_colours_and_joined_tokens_are_text() -> None:
    evil = HOSTILE[0]
    for page in (
        tint_scale(evil, evil, evil),
        lettered_swatches([(evil, evil, "#aabbcc")], "#ffffff"),
        joined_list([(evil, [(evil, -1.5)])]),
    ):
        assert "<script" not in page
        assert "alert(1)" in page
    assert 'title="−1.5"' in joined_list([("a", [("b", -1.5)])])
