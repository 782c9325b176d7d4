"""Colours of pictures: a diverging scale with white at 0, and its colour bar."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from projector.figures.layers.lettering import number, put_text

SMALL = 13
INK, QUIET, LINE, EMPTY = "#1f2933", "#52606d", "#9aa5b1", "#e4e7eb"
BAR_HEIGHT, BAR_ROOM = 16, 44
# Blue, white, red: the lightness falls evenly to both sides (ColorBrewer's RdBu).
_STOPS = (
    "#053061",
    "#2166ac",
    "#4393c3",
    "#92c5de",
    "#d1e5f0",
    "#ffffff",
    "#fddbc7",
    "#f4a582",
    "#d6604d",
    "#b2182b",
    "#67001f",
)
# An odd number of them: the middle one is 0. A GIF has room for these and for those of text.
N_COLOURS = 161

Pixels = NDArray[np.uint8]


def rgb_of(colour: str) -> tuple[int, int, int]:
    """Convert a colour: ``#1f2933`` → (31, 41, 51)."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


@cache
def scale() -> Pixels:
    """The colours from the lowest value to the highest, (161, 3) uint8."""
    stops = np.array([rgb_of(each) for each in _STOPS], dtype=np.float64)
    at = np.linspace(0, len(stops) - 1, N_COLOURS)
    parts = [np.interp(at, np.arange(len(stops)), stops[:, k]) for k in range(3)]
    return np.stack(parts, axis=1).round().astype(np.uint8)


def coloured(values: NDArray[np.float32], high: float) -> Pixels:
    """Convert values (R, C) to colours (R, C, 3): white at 0, the end colours at ±high and beyond.

    Missing values are grey. If ``high`` is 0, all values are 0.
    """
    middle = (N_COLOURS - 1) // 2
    share = np.clip(values.astype(np.float64) / (high or 1.0), -1, 1)
    place = np.rint(np.nan_to_num(share) * middle).astype(np.int64) + middle
    pixels = scale()[place]
    pixels[np.isnan(values)] = rgb_of(EMPTY)
    return pixels


def draw_bar(
    picture: Image.Image, place: tuple[int, int], width: int, high: float | None, is_clipped: bool
) -> None:
    """Draw a horizontal colour bar with its numbers below; its height is BAR_ROOM pixels.

    Args:
        place: x and y of its top left corner.
        width: pixels from end to end; tips and numbers extend by about 30 pixels on either side.
        high: the value at its right end; None if each layer has its own range.
        is_clipped: whether values are beyond its ends, which are then drawn as tips.
    """
    x, y = place
    draw = ImageDraw.Draw(picture)
    bar = Image.fromarray(np.ascontiguousarray(scale()[None]))
    picture.paste(bar.resize((width, BAR_HEIGHT), Image.Resampling.NEAREST), (x, y))
    if is_clipped:
        middle, tip = y + (BAR_HEIGHT - 1) / 2, BAR_HEIGHT // 2
        for at, out, colour in ((x, -tip, _STOPS[0]), (x + width - 1, tip, _STOPS[-1])):
            corners = [(at, y), (at, y + BAR_HEIGHT - 1), (at + out, middle)]
            draw.polygon(corners, fill=colour)
    for share in (-1.0, -0.5, 0.0, 0.5, 1.0):
        at = x + round((share + 1) / 2 * (width - 1))
        draw.line([(at, y + BAR_HEIGHT), (at, y + BAR_HEIGHT + 4)], fill=LINE)
        put_text(draw, (at, y + BAR_HEIGHT + 7), _tick(share, high), SMALL, INK, "ma")


def _tick(share: float, high: float | None) -> str:
    if high is not None:
        return number(share * high)
    words = {-1.0: "−range", -0.5: "−½", 0.0: "0", 0.5: "½", 1.0: "+range"}
    return words[share]
