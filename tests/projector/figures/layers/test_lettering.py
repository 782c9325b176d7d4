"""Text in pictures: no sign is drawn as a box, and numbers are as people write them."""

from __future__ import annotations

import pytest
from PIL import ImageFont

from projector.figures.layers import lettering
from projector.figures.layers.lettering import (
    cut,
    drawable,
    number,
    percent,
    text_width,
    wrapped,
)


def test_a_font_without_a_sign_gets_another_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    # Pillow's own, as where a system has none that is known.
    monkeypatch.setattr(lettering, "find_font", ImageFont.load_default)
    lettering._sign.cache_clear()
    assert drawable("−1 × a\nb", 14) == "-1 x a b"
    assert drawable("½ ö", 14) == "1/2 o"
    assert drawable("日", 14) == "U+65E5"
    lettering._sign.cache_clear()


def test_a_line_is_cut_and_wrapped_to_its_room() -> None:
    text = "a prompt of some words that is much too long for the room it has"
    assert text_width(cut(text, 120, 14), 14) <= 120
    assert cut(text, 120, 14).endswith("…")
    assert cut("a", 120, 14) == "a"
    lines = wrapped(text, 150, 14)
    assert " ".join(lines) == text
    assert max(text_width(line, 14) for line in lines) <= 150
    assert wrapped("x" * 900, 100, 14)[0].endswith("…")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-1.25, "−1.25"),
        (12.345, "12.3"),
        (-12345.6, "−12,346"),
        (0.0123, "0.0123"),
        (1.2e-5, "1.2e−05"),
        (999.6, "1000"),
    ],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_a_share_that_is_there_is_never_shown_as_nothing() -> None:
    assert percent(0.0) == "0.0 %"
    assert percent(0.0001) == "less than 0.1 %"
    assert percent(0.005) == "0.5 %"
    assert percent(0.5) == "50 %"
