"""A picture of all layers as bands of rows, one below another, in one panel or several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from projector.figures.layers.colours import (
    BAR_ROOM,
    INK,
    LINE,
    QUIET,
    SMALL,
    coloured,
    draw_bar,
)
from projector.figures.layers.lettering import (
    cut,
    number,
    put_text,
    text_width,
    wrapped,
)
from projector.figures.layers.words import largest_words, range_words
from projector.residual.layer_image.image import BETWEEN, ROOM, LayerImage, cell_pixels

Pixels = NDArray[np.uint8]
MARGIN = 24
TITLE, TEXT = 22, 15
LINE_HEIGHT = 21
# Between panels, with room for the ranges of layers or the points of bars.
GAP = 26
_LEAST_WIDTH = 720
_LEAST_BAND = 15


@dataclass(frozen=True)
class Panel:
    """An image with its caption; panels with the same scale share one colour bar.

    Attributes:
        image: the image to draw.
        caption: the text above it; "" for no text.
        scale: index of the scale; neighbouring panels with the same scale share a colour bar.
    """

    image: LayerImage
    caption: str = ""
    scale: int = 0


@dataclass(frozen=True)
class Layout:
    """The layout of a picture, in pixels.

    Attributes:
        left: x of each panel; the last entry is the end of the panels.
        panel_width: width of each panel.
        width: width of the picture.
        side: space to the right of each panel for the layers' ranges.
    """

    left: tuple[int, ...]
    panel_width: int
    width: int
    side: int

    @classmethod
    def of(cls, labels: int, panel_width: int, n_panels: int, side: int) -> Layout:
        """Create the layout of panels to the right of labels with a given width."""
        step = panel_width + side + GAP
        first = MARGIN + labels
        left = tuple(first + i * step for i in range(n_panels))
        end = left[-1] + panel_width + side + MARGIN
        return cls(left, panel_width, max(end, _LEAST_WIDTH), side)

    def span(self, first: int, last: int) -> tuple[int, int]:
        """x and width from one panel's left edge to another's right edge."""
        return self.left[first], self.left[last] + self.panel_width - self.left[first]


def draw_bands(
    panels: Sequence[Panel],
    title: str,
    lines: Sequence[str],
    *,
    room: tuple[int, int] = ROOM,
    notes: str | None = None,
) -> Pixels:
    """Draw bands of all frames from the embedding down to the last layer.

    Args:
        panels: images with the same shape and fold.
        title: the title, which is wrapped.
        lines: lines below the title; each is wrapped.
        room: total width and height of the cells of all panels, in pixels.
        notes: text below a single panel; None for the range and the largest value.

    Returns:
        (h, w, 3) uint8, RGB.
    """
    first = panels[0].image
    n_frames, n_rows, n_columns = first.values.shape
    cell = max(1, cell_pixels(first.values.shape, len(panels), room=room))
    # A single row is drawn higher than wide, so that its label has room.
    high = cell
    if n_rows * cell < _LEAST_BAND:
        most = (room[1] // n_frames - BETWEEN) // n_rows
        high = max(cell, min(most, -(-_LEAST_BAND // n_rows)))
    step = n_rows * high + BETWEEN
    labels = max(text_width(name, SMALL) for name in first.names) + 12
    side = _side_room(panels)
    layout = Layout.of(labels, n_columns * cell, len(panels), side)
    head, y = head_of(title, lines, layout, [each.caption for each in panels])
    said = notes_of(panels, layout, notes)
    height = y + n_frames * step + 14 + BAR_ROOM + len(said) * LINE_HEIGHT + MARGIN
    picture = Image.new("RGB", (layout.width, height), "white")
    picture.paste(head, (0, 0))
    draw = ImageDraw.Draw(picture)
    _draw_ticks(draw, layout, y, n_columns, cell)
    every = max(1, -(-(SMALL + 1) // step))
    for i, name in enumerate(first.names):
        top = y + i * step
        middle = top + n_rows * high / 2
        if i % every == 0:
            put_text(draw, (layout.left[0] - 8, middle), name, SMALL, INK, "rm")
        for panel, x in zip(panels, layout.left, strict=True):
            paste_cells(picture, panel.image, i, (x, top), (cell, high))
            if side and i % every == 0:
                end = f"±{number(float(panel.image.high[i]))}"
                at = (x + layout.panel_width + 8, middle)
                put_text(draw, at, end, SMALL, QUIET, "lm")
    draw_bars(picture, panels, layout, y + n_frames * step + 14, said)
    return np.asarray(picture)


def paste_cells(
    picture: Image.Image,
    image: LayerImage,
    frame: int,
    place: tuple[int, int],
    cell: tuple[int, int],
) -> None:
    """Draw one frame's cells with a thin border, so that white cells are visible."""
    values = image.values[frame]
    pixels = coloured(values, float(image.high[frame]))
    size = (values.shape[1] * cell[0], values.shape[0] * cell[1])
    cells = Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST)
    x, y = place
    box = [x - 1, y - 1, x + size[0], y + size[1]]
    ImageDraw.Draw(picture).rectangle(box, outline="#cbd2d9")
    picture.paste(cells, place)


def draw_bars(
    picture: Image.Image,
    panels: Sequence[Panel],
    layout: Layout,
    y: int,
    notes: Sequence[str],
    frame: int | None = None,
) -> None:
    """Draw a colour bar for each scale below its panels, and lines of text below the bars.

    Args:
        frame: the shown frame, for the numbers of its own range; None for all frames.
    """
    draw = ImageDraw.Draw(picture)
    for first, last in _groups(panels):
        x, width = layout.span(first, last)
        image = panels[first].image
        is_one = image.range == "all"
        high = float(image.high[frame or 0]) if is_one or frame is not None else None
        are_clipped = any(each.image.clipped.any() for each in panels[first : last + 1])
        # Its first number is wider than the bar.
        draw_bar(picture, (x + 20, y), min(max(160, width - 40), 560), high, are_clipped)
    for i, line in enumerate(notes):
        place = (layout.left[0], y + BAR_ROOM + i * LINE_HEIGHT)
        put_text(draw, place, line, SMALL, QUIET)


def _groups(panels: Sequence[Panel]) -> list[tuple[int, int]]:
    """First and last panel of each scale."""
    found: list[tuple[int, int]] = []
    for i, panel in enumerate(panels):
        if found and panels[found[-1][0]].scale == panel.scale:
            found[-1] = (found[-1][0], i)
        else:
            found.append((i, i))
    return found


def notes_of(panels: Sequence[Panel], layout: Layout, given: str | None = None) -> list[str]:
    """The notes for each scale, in lines that fit below the panels.

    Args:
        given: replacement text.
    """
    texts = [] if given is None else [given]
    for first, last in _groups(panels) if given is None else ():
        images = [each.image for each in panels[first : last + 1]]
        about = "Difference: " if images[0].is_difference else ""
        texts.append(f"{about}{range_words(images)} {largest_words(images)}")
    room = layout.width - MARGIN - layout.left[0]
    return [line for text in texts for line in wrapped(text, room, SMALL)]


def _side_room(panels: Sequence[Panel]) -> int:
    """Room for the layers' ranges; 0 if all have one."""
    if panels[0].image.range == "all":
        return 0
    ends = [f"±{number(float(high))}" for each in panels for high in each.image.high]
    return max(text_width(each, SMALL) for each in ends) + 12


def head_of(
    title: str, lines: Sequence[str], layout: Layout, captions: Sequence[str]
) -> tuple[Image.Image, int]:
    """Draw title, text and captions; returns the y where the first band begins."""
    room = layout.width - 2 * MARGIN
    titles = [cut(line, room, TITLE) for line in wrapped(title, room, TITLE)]
    text = [part for line in lines if line for part in wrapped(line, room, TEXT)]
    has_captions = any(captions)
    below = MARGIN + len(titles) * (TITLE + 6) + 6
    y = below + len(text) * LINE_HEIGHT + 12
    height = y + (LINE_HEIGHT + 4 if has_captions else 0) + SMALL + 9
    head = Image.new("RGB", (layout.width, height), "white")
    draw = ImageDraw.Draw(head)
    for i, line in enumerate(titles):
        put_text(draw, (MARGIN, MARGIN + i * (TITLE + 6)), line, TITLE, INK)
    for i, line in enumerate(text):
        place = (MARGIN, below + i * LINE_HEIGHT)
        put_text(draw, place, line, TEXT, QUIET)
    for x, caption in zip(layout.left, captions, strict=True):
        put_text(draw, (x, y), cut(caption, layout.panel_width + layout.side, TEXT), TEXT, INK)
    return head, height


def _draw_ticks(
    draw: ImageDraw.ImageDraw, layout: Layout, y: int, n_columns: int, cell: int
) -> None:
    """Columns above the first band: the hidden dimensions of each first row."""
    places = {0, n_columns - 1}
    for step in (1, 2, 5, 10, 20, 25, 50, 100, 200, 250, 500, 1000, 2000, 5000):
        if step * cell >= 70:
            places |= set(range(0, n_columns - 1 - max(1, 36 // cell), step))
            break
    for x in layout.left:
        for place in sorted(places):
            at = x + place * cell + cell // 2
            draw.line([(at, y - 5), (at, y - 2)], fill=LINE)
            put_text(draw, (at, y - 7), f"{place:,}", SMALL - 1, QUIET, "ms")
