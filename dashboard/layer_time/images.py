"""All layers of one token of a prompt as an image."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image
from torch import Tensor

from projector.figures.layers.writing import draw_picture
from projector.residual.layer_image.image import layer_image


def token_png(
    states: Tensor, token: int | None, names: Sequence[str], *, range: str, model: str
) -> bytes:
    """All layers of a token, or of the mean of all tokens, as a PNG that says what is clipped.

    Args:
        states: (F, T, H) float32.
        token: its place; None for the mean.
        names: of the T tokens, with signs for blanks.
        range: ``all`` or ``per-layer``, see
            :func:`projector.residual.layer_image.image.layer_image`.
        model: what the model is called.

    Raises:
        UserError: if a state is not finite.
    """
    vectors = states.mean(dim=1) if token is None else states[:, token]
    called = f"mean of {len(names):,} tokens"
    if token is not None:
        called = f"token {token + 1} ‘{names[token]}’"
    image = layer_image(vectors, range=range, model=model, token=called)
    file = io.BytesIO()
    Image.fromarray(draw_picture(image)).save(file, format="PNG")
    return file.getvalue()
