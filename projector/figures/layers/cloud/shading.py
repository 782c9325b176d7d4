"""Draw densities of one or two prompts as shades of two hues, with particles as points."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from projector.corpus.pieces import readable
from projector.figures.layers.bands import LINE_HEIGHT, MARGIN, TEXT, TITLE
from projector.figures.layers.cloud.densities import Clouds
from projector.figures.layers.colours import BAR_HEIGHT, INK, LINE, QUIET, SMALL, rgb_of
from projector.figures.layers.frames import draw_strip
from projector.figures.layers.lettering import cut, number, put_text, wrapped

Pixels = NDArray[np.uint8]
# A hue for each prompt: what is of both is dark.
HUES = ("#3b82c4", "#ef8636")
_POINTS = ("#12457a", "#a34a00")
_SIDE = 620
_LEAST_SIDE = 260
# A cell of the grid is so many pixels wide and high.
_CELL = 2
# More points would cover the density.
_MOST_POINTS = 400
_STRIP = 48
_N_SHADES = 48


def draw_densities(clouds: Clouds) -> Iterator[Pixels]:
    """Draw one picture per frame: the density of each prompt's particles, with one scale over all
    frames and both prompts.

    The shade is proportional to the square root of the density; otherwise, if most particles are
    close together in one frame, all other frames would be white.

    Yields:
        (h, w, 3) uint8, RGB.
    """
    n_cells = _cells_of(clouds)
    prompts = range(len(clouds.texts))
    densities = [
        [clouds.density(frame, prompt, n_cells) for prompt in prompts]
        for frame in range(len(clouds.names))
    ]
    highest = max(float(each.max()) for several in densities for each in several)
    head, y = _head(clouds, highest, n_cells[0] * _CELL)
    height = y + n_cells[1] * _CELL + 14 + _STRIP + MARGIN
    x = (head.width - n_cells[0] * _CELL) // 2
    for frame, several in enumerate(densities):
        picture = Image.new("RGB", (head.width, height), "white")
        picture.paste(head, (0, 0))
        shaded = Image.fromarray(shade([each / highest for each in several]))
        size = (n_cells[0] * _CELL, n_cells[1] * _CELL)
        picture.paste(shaded.resize(size, Image.Resampling.NEAREST), (x, y))
        draw = ImageDraw.Draw(picture)
        draw.rectangle([x - 1, y - 1, x + size[0], y + size[1]], outline="#cbd2d9")
        _draw_points(draw, clouds, frame, (x, y), size)
        _draw_measure(draw, clouds, frame, (x, y), size)
        draw_strip(picture, (MARGIN, y + size[1] + 14), clouds.names, frame)
        yield np.asarray(picture)


def shade(shares: list[NDArray[np.float64]]) -> Pixels:
    """Convert densities (R, C), as shares of the highest, to colours (R, C, 3); white if all are 0.

    Hues are mixed subtractively, like ink.
    """
    found = np.full((*shares[0].shape, 3), 255.0)
    for share, hue in zip(shares, HUES, strict=False):
        # A film has few colours: so many shades of each hue.
        depth = np.rint(np.sqrt(share) * (_N_SHADES - 1)) / (_N_SHADES - 1)
        taken = 1 - np.array(rgb_of(hue)) / 255
        found *= 1 - depth[..., None] * taken
    return found.round().astype(np.uint8)


def shades(n_prompts: int) -> Pixels:
    """All shades of each hue, of both together, and of points, (n, 3) uint8."""
    shares = np.linspace(0, 1, _N_SHADES)[None] ** 2
    nothing = np.zeros_like(shares)
    both = [] if n_prompts == 1 else [shade([nothing, shares]), shade([shares, shares])]
    points = np.array([rgb_of(each) for each in _POINTS], dtype=np.uint8)
    return np.concatenate([points, *(each[0] for each in (shade([shares, nothing]), *both))])


def _cells_of(clouds: Clouds) -> tuple[int, int]:
    """Columns and rows of a grid of square cells."""
    extent = clouds.high[0] - clouds.low[0]
    sides = np.maximum(_SIDE * extent / extent.max(), _LEAST_SIDE)
    return int(sides[0] // _CELL), int(sides[1] // _CELL)


def _draw_points(
    draw: ImageDraw.ImageDraw,
    clouds: Clouds,
    frame: int,
    place: tuple[int, int],
    size: tuple[int, int],
) -> None:
    shown = clouds.is_shown[frame]
    if clouds.is_shown.sum(axis=1).max() > _MOST_POINTS:
        return
    low, high = clouds.low[frame], clouds.high[frame]
    share = (clouds.positions[frame] - low) / (high - low)
    for i in np.flatnonzero(shown):
        x = place[0] + float(share[i, 0]) * size[0]
        y = place[1] + (1 - float(share[i, 1])) * size[1]
        colour = _POINTS[int(clouds.prompts[i]) % 2]
        # A second prompt's are smaller: where both are at one place, both are seen.
        radius = 2 if clouds.prompts[i] else 3.5
        box = [x - radius, y - radius, x + radius, y + radius]
        draw.ellipse(box, fill=colour, outline="white")


def _draw_measure(
    draw: ImageDraw.ImageDraw,
    clouds: Clouds,
    frame: int,
    place: tuple[int, int],
    size: tuple[int, int],
) -> None:
    """A bar of so many of the map's units, in the lower left corner: a fifth of the window or
    less."""
    extent = float(clouds.high[frame, 0] - clouds.low[frame, 0])
    power = 10.0 ** np.floor(np.log10(extent / 5))
    units = power * max(k for k in (1, 2, 5) if k * power <= extent / 5)
    length = units / extent * size[0]
    x, y = place[0] + 14, place[1] + size[1] - 14
    draw.line([(x, y), (x + length, y)], fill=INK, width=2)
    words = f"{units:,g} {'unit' if units == 1 else 'units'} of the map"
    put_text(draw, (x, y - 6), words, SMALL, INK, "ls")


def _head(clouds: Clouds, highest: float, wide: int) -> tuple[Image.Image, int]:
    """Title, prompts with their hues, and what the shades are; and where the map begins."""
    width = max(wide, _SIDE) + 2 * MARGIN
    room = width - 2 * MARGIN
    notes = wrapped(words_of(clouds, highest), room, SMALL)
    top = MARGIN + TITLE + 12
    texts = [f"‘{readable(text)}’" for text in clouds.texts]
    keys: list[tuple[str, tuple[int, ...]]] = [(text, (0,)) for text in texts]
    if len(texts) == 2:
        keys = [(f"A: {texts[0]}", (0,)), (f"B: {texts[1]}", (1,)), ("both", (0, 1))]
    below = top + len(keys) * LINE_HEIGHT + 6
    y = below + len(notes) * (LINE_HEIGHT - 2) + 12
    head = Image.new("RGB", (width, y), "white")
    draw = ImageDraw.Draw(head)
    title = "Particles as a density, layer by layer" + (f": {clouds.model}" if clouds.model else "")
    put_text(draw, (MARGIN, MARGIN), cut(title, room, TITLE), TITLE, INK)
    for i, (text, prompts) in enumerate(keys):
        line = top + i * LINE_HEIGHT
        shares = np.linspace(0, 1, 60)[None] ** 2
        ramp = shade([shares if k in prompts else np.zeros((1, 60)) for k in (0, 1)])
        bar = Image.fromarray(ramp).resize((60, BAR_HEIGHT - 4), Image.Resampling.NEAREST)
        head.paste(bar, (MARGIN, line + 3))
        draw.rectangle([MARGIN - 1, line + 2, MARGIN + 60, line + BAR_HEIGHT - 1], outline=LINE)
        put_text(draw, (MARGIN + 72, line), cut(text, room - 72, TEXT), TEXT, INK)
    for i, line_text in enumerate(notes):
        put_text(draw, (MARGIN, below + i * (LINE_HEIGHT - 2)), line_text, SMALL, QUIET)
    return head, y


def words_of(clouds: Clouds, highest: float) -> str:
    """Explain the density and its scale."""
    spread = "the median spread of a frame’s particles"
    window = "The window is the same in all frames."
    if clouds.follows:
        spread = "the spread of the frame’s particles"
        window = "The window follows the particles and is as wide as their spread requires."
    left_out = ""
    if clouds.n_left_out:
        are = "particle is" if clouds.n_left_out == 1 else "particles are"
        left_out = f" {clouds.n_left_out:,} outlying {are} left out."
    return (
        f"Gaussian kernels of {clouds.bandwidth:.2f} times {spread} (Scott’s rule). One "
        f"square-root scale for all frames: full colour is a density of {number(highest)}, where 1 "
        f"is all of a prompt’s particles in a square of one spread. {window}{left_out}"
    )
