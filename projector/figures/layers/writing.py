"""Write all layers of a token into a folder: ``layers.png``, and a film with one frame per
layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from projector.figures.layers.bands import Panel, draw_bands
from projector.figures.layers.colours import scale
from projector.figures.layers.film import Pixels, Written, write_film
from projector.figures.layers.frames import draw_checkpoints, draw_frames
from projector.figures.layers.words import prompt_words, reading_words, title_of
from projector.residual.layer_image.image import LayerImage
from projector.storage.replacing import replacing_file

PICTURE, FILM, CHECKPOINTS = "layers.png", "layers", "checkpoints"
# Frames a second: so many layers are seen in one.
LAYERS_PER_SECOND = 4.0
CHECKPOINTS_PER_SECOND = 2.0


def write_layer_image(image: LayerImage, folder: Path) -> Written:
    """Write ``layers.png``, all layers in bands; ``layers.gif`` and ``layers.mp4``, one by one.

    Returns:
        The files, and a note if there is no MP4.

    Raises:
        OSError: if a file can't be written.
    """
    return _write([Panel(image)], image, folder)


def draw_picture(image: LayerImage) -> Pixels:
    """The picture in ``layers.png``, (height, width, 3) uint8."""
    return _draw([Panel(image)], image, title_of(image))


def write_difference(
    before: LayerImage, after: LayerImage, difference: LayerImage, folder: Path
) -> Written:
    """Like :func:`write_layer_image`, for two models and their difference (second minus first).

    Raises:
        OSError: if a file can't be written.
    """
    panels = [
        Panel(before, f"before: {before.model}"),
        Panel(after, f"after: {after.model}"),
        Panel(difference, "after − before", scale=1),
    ]
    return _write(panels, before, folder)


def write_checkpoints(images: Sequence[LayerImage], folder: Path) -> Written:
    """Write ``checkpoints.gif`` and ``checkpoints.mp4``, with all layers of one model per frame.

    Args:
        images: images of the same shape and range, in order.

    Raises:
        OSError: if a file can't be written.
    """
    film = draw_checkpoints(images, title_of(images[0], of_models=False))
    return write_film(film, folder / CHECKPOINTS, fps=CHECKPOINTS_PER_SECOND, exact=scale())


def _write(panels: Sequence[Panel], image: LayerImage, folder: Path) -> Written:
    title = title_of(image) if len(panels) == 1 else title_of(image, of_models=False)
    path = folder / PICTURE
    write_picture(_draw(panels, image, title), path)
    frames = draw_frames(panels, title, [prompt_words(image), image.note])
    film = write_film(frames, folder / FILM, fps=LAYERS_PER_SECOND, exact=scale())
    return Written((path, *film.paths), film.note)


def _draw(panels: Sequence[Panel], image: LayerImage, title: str) -> Pixels:
    lines = [prompt_words(image), reading_words(image, in_bands=True), image.note]
    return draw_bands(panels, title, lines)


def write_picture(pixels: Pixels, path: Path) -> None:
    """Write a PNG atomically.

    Raises:
        OSError: if it can't be written.
    """
    with replacing_file(path) as partial:
        Image.fromarray(pixels).save(partial, format="PNG", optimize=True)
