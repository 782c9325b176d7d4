"""Pictures of single layers for the frames of a film, with large cells in rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from projector.figures.layers.bands import (
    LINE_HEIGHT,
    MARGIN,
    TEXT,
    TITLE,
    Layout,
    Panel,
    draw_bands,
    draw_bars,
    head_of,
    notes_of,
    paste_cells,
)
from projector.figures.layers.colours import BAR_ROOM, INK, LINE, QUIET
from projector.figures.layers.lettering import put_text
from projector.figures.layers.words import prompt_words, range_words, reading_words
from projector.residual.layer_image.image import ROOM, LayerImage, cell_pixels, choose_fold

Pixels = NDArray[np.uint8]
# The cells of all panels together, in pixels.
FILM_ROOM = (960, 560)
# Of a film whose frames are pictures of all layers.
WHOLE_ROOM = (1100, 900)
MOST_PIXELS_OF_A_CELL = 40
_STRIP = 40


def draw_frames(panels: Sequence[Panel], title: str, lines: Sequence[str]) -> Iterator[Pixels]:
    """Draw one picture for each frame of the stream, with the same size, layout and scale.

    Args:
        panels: images of the same shape, which are folded again to be about square.
        title: the title, which is wrapped.
        lines: lines below the title; each is wrapped.

    Yields:
        (h, w, 3) uint8, RGB.
    """
    n_frames, n_hidden = panels[0].image.shape
    limits = {"room": FILM_ROOM, "most": MOST_PIXELS_OF_A_CELL}
    width = choose_fold(n_hidden, 1, len(panels), **limits)  # type: ignore[arg-type]
    panels = [replace(each, image=each.image.folded(width)) for each in panels]
    _, n_rows, _ = panels[0].image.values.shape
    cell = max(1, cell_pixels((1, n_rows, width), len(panels), **limits))  # type: ignore[arg-type]
    layout = Layout.of(0, width * cell, len(panels), 0)
    head, y = head_of(title, lines, layout, [each.caption for each in panels])
    notes = notes_of(panels, layout)
    below = y + n_rows * cell + 14
    bars = below + _STRIP + 14
    height = bars + BAR_ROOM + len(notes) * LINE_HEIGHT + MARGIN
    for i in range(n_frames):
        picture = Image.new("RGB", (layout.width, height), "white")
        picture.paste(head, (0, 0))
        for panel, x in zip(panels, layout.left, strict=True):
            paste_cells(picture, panel.image, i, (x, y), (cell, cell))
        draw_strip(picture, (MARGIN, below), panels[0].image.names, i)
        draw_bars(picture, panels, layout, bars, notes, i)
        yield np.asarray(picture)


def draw_checkpoints(images: Sequence[LayerImage], title: str) -> Iterator[Pixels]:
    """Draw one picture for each model of a sequence, with all layers in bands and the same layout
    and scale.

    Args:
        images: images of the same shape and range, which are folded again for a smaller picture.
        title: the title, which is wrapped.

    Yields:
        (h, w, 3) uint8, RGB.
    """
    n_frames, n_hidden = images[0].shape
    room = WHOLE_ROOM
    width = choose_fold(n_hidden, n_frames, room=room)
    if not cell_pixels((n_frames, -(-n_hidden // width), width), room=room):
        room = ROOM
        width = choose_fold(n_hidden, n_frames, room=room)
    folded = [each.folded(width) for each in images]
    lines = [prompt_words(images[0]), reading_words(folded[0], in_bands=True), images[0].note]
    notes = range_words(images)
    names = [each.model for each in images]
    for i, each in enumerate(folded):
        bands = Image.fromarray(draw_bands([Panel(each)], title, lines, room=room, notes=notes))
        picture = Image.new("RGB", (bands.width, bands.height + _STRIP + 8), "white")
        picture.paste(bands, (0, 0))
        draw_strip(picture, (MARGIN, bands.height - 8), names, i)
        yield np.asarray(picture)


def draw_strip(
    picture: Image.Image, place: tuple[int, int], names: Sequence[str], current: int
) -> None:
    """Draw the position in a sequence: its name, and a mark on a line with one tick per element."""
    x, y = place
    width = picture.width - 2 * MARGIN
    draw = ImageDraw.Draw(picture)
    put_text(draw, (x, y), names[current], TITLE - 4, INK)
    last = f"{current + 1:,} of {len(names):,}"
    put_text(draw, (x + width, y + 2), last, TEXT, QUIET, "ra")
    line = y + 32
    draw.line([(x, line), (x + width - 1, line)], fill=LINE)
    for i in range(len(names)):
        at = x + round(i / max(1, len(names) - 1) * (width - 1))
        draw.line([(at, line - 3), (at, line + 3)], fill=LINE)
    at = x + round(current / max(1, len(names) - 1) * (width - 1))
    draw.ellipse([at - 6, line - 6, at + 6, line + 6], fill=INK)
