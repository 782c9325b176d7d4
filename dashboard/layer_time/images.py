"""All layers of one token of a prompt as an image."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image
from torch import Tensor

from projector.figures.layers.writing import draw_picture
from projector.residual.layer_image.image import layer_image
from projector.residual.layer_image.tokens import choose_states


def token_png(
    states: Tensor,
    position: int | None,
    tokens: Sequence[str],
    *,
    range: str,
    model: str,
    prompt: str = "",
) -> bytes:
    """All layers of a token, or of the mean of all tokens, as a PNG that reports clipping.

    Args:
        states: (F, T, H) float32.
        position: the token's number from 0; None for the mean, which leaves out tokens with outlier
            norms.
        tokens: texts of the T tokens.
        range: ``all`` or ``per-layer``, see
            :func:`projector.residual.layer_image.image.layer_image`.
        model: name of the model.
        prompt: "A" or "B" if there are two prompts.

    Raises:
        UserError: if a state is not finite.
    """
    shown = choose_states(states, tokens, position, prompt=prompt)
    image = layer_image(
        shown.vectors,
        range=range,
        model=model,
        token=shown.words,
        prompt="".join(tokens),
        note=shown.note,
    )
    file = io.BytesIO()
    Image.fromarray(draw_picture(image)).save(file, format="PNG")
    return file.getvalue()
