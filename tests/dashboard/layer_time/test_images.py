"""All layers of a token as a picture."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image

from dashboard.layer_time.images import token_image


def _pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


def test_the_picture_is_of_the_token_that_is_asked_for() -> None:
    states = torch.randn(3, 4, 24, generator=torch.Generator().manual_seed(0))
    names = ["a", "b", "c", "d"]
    first, again, second, mean = (
        token_image(states, token, names, range="all", model="m") for token in (1, 1, 2, None)
    )
    assert first.png == again.png
    assert len({each.png for each in (first, second, mean)}) == 3
    assert _pixels(first.png).shape[2] == 3
    # What is clipped is said, and it is another share where each layer has its own range.
    assert "clipped" in first.words
    own = token_image(states, 1, names, range="per-layer", model="m")
    assert "its own range" in own.words
