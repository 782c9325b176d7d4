"""All layers of a token as a picture."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image

from dashboard.layer_time.images import token_png


def _pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


def test_the_picture_is_of_the_token_that_is_asked_for() -> None:
    states = torch.randn(3, 4, 24, generator=torch.Generator().manual_seed(0))
    names = ["a", "b", "c", "d"]
    first, again, second, mean, own = (
        token_png(states, token, names, range=range_, model="m")
        for token, range_ in ((1, "all"), (1, "all"), (2, "all"), (None, "all"), (1, "per-layer"))
    )
    assert first == again
    assert len({first, second, mean, own}) == 4
    assert all(_pixels(each).shape[2] == 3 for each in (first, own))
