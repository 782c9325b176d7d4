"""Pictures and films of layers: what a cell's colour is, and what is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from projector.figures.layers import film
from projector.figures.layers.bands import Panel, draw_bands
from projector.figures.layers.colours import coloured, rgb_of, scale
from projector.figures.layers.frames import FILM_ROOM, MOST_PIXELS_OF_A_CELL, draw_frames
from projector.figures.layers.words import largest_words, range_words, reading_words, title_of
from projector.figures.layers.writing import (
    write_checkpoints,
    write_difference,
    write_layer_image,
)
from projector.residual.layer_image.image import (
    LayerImage,
    cell_pixels,
    choose_fold,
    difference,
    layer_image,
    layer_images,
)
from tests.refused import lacking


@pytest.fixture(autouse=True)
def _no_ffmpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(film, "find_ffmpeg", lambda: None)


def states(n_frames: int, n_hidden: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n_frames, n_hidden)).astype(np.float32)


def image_of(n_frames: int = 4, n_hidden: int = 30) -> LayerImage:
    return layer_image(states(n_frames, n_hidden), model="m", token="token 1 ‘a’", prompt="a b")


def test_colours_are_white_at_zero_and_alike_on_both_sides() -> None:
    values = np.array([[0, 1, -1, 0.5, -0.5, 2, -9, np.nan]], dtype=np.float32)
    (found,) = coloured(values, 1.0)
    assert tuple(found[0]) == (255, 255, 255)
    assert tuple(found[1]) == tuple(found[5]) == tuple(scale()[-1])
    assert tuple(found[2]) == tuple(found[6]) == tuple(scale()[0])
    # Red above 0, blue below, and neither end is like the other: no cyclic scale.
    assert found[3][0] > found[3][2]
    assert found[4][2] > found[4][0]
    assert tuple(found[7]) == rgb_of("#e4e7eb")
    assert (coloured(np.zeros((2, 2), np.float32), 0.0) == 255).all()


def cells_in(pixels: np.ndarray, wanted: np.ndarray, side: int) -> bool:
    """Whether somewhere in a picture cells of these colours, of so many pixels a side, stand so."""
    n_rows, n_columns, _ = wanted.shape
    ys, xs = np.nonzero((pixels == wanted[0, 0]).all(axis=-1))
    for y, x in zip(ys, xs, strict=True):
        block = pixels[y : y + n_rows * side : side, x : x + n_columns * side : side]
        if block.shape == wanted.shape and (block == wanted).all():
            return True
    return False


def test_every_band_and_every_frame_shows_its_layer() -> None:
    image = image_of()
    bands = draw_bands([Panel(image)], "title", [])
    frames = list(draw_frames([Panel(image)], "title", []))
    limits: dict[str, Any] = {"room": FILM_ROOM, "most": MOST_PIXELS_OF_A_CELL}
    folded = image.folded(choose_fold(30, 1, **limits))
    side = cell_pixels((1, *folded.values.shape[1:]), **limits)
    assert len(frames) == 4
    for i in range(4):
        high = float(image.high[i])
        whole = coloured(image.values[i], high)
        assert cells_in(bands, whole, cell_pixels(image.values.shape))
        assert cells_in(frames[i], coloured(folded.values[i], high), side)
        assert not cells_in(frames[i - 1], coloured(folded.values[i], high), side)


@pytest.mark.parametrize("shape", [(2, 32), (81, 32), (81, 8192)])
def test_a_picture_is_of_a_size_that_can_be_looked_at(shape: tuple[int, int]) -> None:
    a, b = layer_images([states(*shape), states(*shape, 1)], n_panels=3, range="per-layer")
    panels = [Panel(a, "before"), Panel(b, "after"), Panel(difference(a, b), "difference", 1)]
    assert max(draw_bands(panels, "title", ["text " * 80]).shape) <= 2400
    (own,) = layer_images([states(*shape)])
    assert max(draw_bands([Panel(own)], "title", []).shape) <= 2400


def test_a_picture_and_a_film_of_a_frame_a_layer_are_written(tmp_path: Path) -> None:
    written = write_layer_image(image_of(5), tmp_path)
    assert [path.name for path in written.paths] == ["layers.png", "layers.gif"]
    assert written.note is not None
    with Image.open(tmp_path / "layers.gif") as image:
        assert image.n_frames == 5
    first = (tmp_path / "layers.png").read_bytes()
    write_layer_image(image_of(5), tmp_path)
    assert (tmp_path / "layers.png").read_bytes() == first


def test_two_models_and_checkpoints_are_written(tmp_path: Path) -> None:
    several = [states(3, 24, seed) for seed in range(3)]
    a, b, c = layer_images(several, models=("a", "b", "c"), n_panels=3)
    write_difference(a, b, difference(a, b), tmp_path)
    with Image.open(tmp_path / "layers.gif") as image:
        assert image.n_frames == 3
    with Image.open(tmp_path / "layers.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    side = cell_pixels(a.values.shape, 3)
    for each in (a, b, difference(a, b)):
        assert cells_in(pixels, coloured(each.values[1], float(each.high[1])), side)
    written = write_checkpoints([a, b, c], tmp_path)
    with Image.open(written.paths[0]) as image:
        assert image.n_frames == 3


def test_words_name_the_range_what_is_clipped_and_the_largest() -> None:
    given = states(4, 1000)
    given[3, 17] = -1234
    given[3, :20] *= 100
    image = layer_image(given, model="m", token="token 3 ‘x’")
    words = range_words([image])
    assert "99.5 %" in words
    assert "layer 2" in words
    assert "−" in words
    largest = largest_words([image])
    assert "−123,400" in largest
    assert "dimension 17" in largest
    assert lacking(title_of(image), "Token 3 ‘x’", "embedding", "layer 2", "m") == []
    assert "3 layers × 1,000" in reading_words(image, in_bands=True)
    assert "clipped" in range_words([layer_image(given, quantile=1.0)])
    nothing = layer_image(np.zeros((2, 4), np.float32))
    assert range_words([nothing]) == "All values are 0."
    assert largest_words([nothing]) == ""
