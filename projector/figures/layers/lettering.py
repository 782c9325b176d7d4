"""Text in pictures: the system's fonts or Pillow's own, and characters without a glyph."""

from __future__ import annotations

import unicodedata
from functools import cache

from PIL import ImageDraw, ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
# The first that the system has. Pillow's own has Latin letters alone.
_FONTS = ("DejaVuSans.ttf", "LiberationSans-Regular.ttf", "NotoSans-Regular.ttf", "arial.ttf")
_MORE_FONTS = ("Arial.ttf", "Helvetica.ttc")
# No character has this number: its glyph is the font's sign for one that is missing.
_NO_CHARACTER = "\U0010fffe"
_PLAIN = {"−": "-", "–": "-", "×": "x", "→": "->", "␣": "_", "⏎": "\\n", "⇥": "\\t", "…": "..."}
_PLAIN |= {"‘": "'", "’": "'", "“": '"', "”": '"', "±": "+-", "·": ".", "½": "1/2"}


@cache
def find_font(size: int) -> Font:
    """Find a font with a size in pixels."""
    for name in (*_FONTS, *_MORE_FONTS):
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default(size)


@cache
def _sign(sign: str, size: int) -> str:
    """A sign as it can be drawn: itself, a plain one for it, or its number."""
    font = find_font(size)
    if sign.isspace() or sign.isascii():
        return " " if sign.isspace() else sign
    if bytes(font.getmask(sign)) != bytes(font.getmask(_NO_CHARACTER)):
        return sign
    # A letter without its accent can be read better than its number.
    base = unicodedata.normalize("NFD", sign)[0]
    return _PLAIN.get(sign, base if base.isascii() else f"U+{ord(sign):04X}")


def drawable(text: str, size: int) -> str:
    """Replace characters without a glyph in the font by codes such as U+65E5."""
    return "".join(_sign(each, size) for each in text)


def text_width(text: str, size: int) -> int:
    """The width of a line in pixels."""
    return round(find_font(size).getlength(drawable(text, size)))


def put_text(
    draw: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    size: int,
    colour: str,
    anchor: str = "la",
) -> None:
    """Draw one line of text.

    Args:
        place: x and y of the anchor, in pixels.
        anchor: Pillow's anchor: "la" is left and top, "rm" right and middle.
    """
    draw.text(place, drawable(text, size), font=find_font(size), fill=colour, anchor=anchor)


def cut(text: str, width: int, size: int) -> str:
    """Shorten a text to at most ``width`` pixels, with … at the cut."""
    if text_width(text, size) <= width:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        fits = text_width(text[:middle] + "…", size) <= width
        low, high = (middle, high) if fits else (low, middle - 1)
    return text[:low] + "…"


def wrapped(text: str, width: int, size: int) -> list[str]:
    """Wrap a text at word boundaries into lines of at most ``width`` pixels."""
    lines: list[str] = []
    line = ""
    for word in text.split():
        longer = f"{line} {word}" if line else word
        if line and text_width(longer, size) > width:
            lines.append(line)
            longer = word
        line = cut(longer, width, size)
    return [*lines, line] if line else lines


def number(value: float) -> str:
    """A number as text with three digits: −1.25, 12,300, 1.2e−05."""
    if value == 0:
        text = "0"
    elif abs(value) >= 1000:
        text = f"{value:,.0f}"
    elif abs(value) >= 0.001:
        digits = max(0, 2 - _order(value))
        text = f"{value:.{digits}f}"
    else:
        text = f"{value:.1e}"
    return text.replace("-", "−")


def _order(value: float) -> int:
    """The power of ten of its first digit."""
    return int(f"{value:e}".partition("e")[2])


def percent(share: float) -> str:
    """A share as text: 0.5 %, 12 %; a non-zero share is never shown as 0."""
    if 0 < share < 0.0005:
        return "less than 0.1 %"
    return f"{100 * share:.1f} %" if share < 0.0995 else f"{100 * share:.0f} %"
