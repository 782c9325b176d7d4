"""Texts of pictures of layers: titles, explanations, and clipped values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from projector.corpus.pieces import readable
from projector.figures.layers.lettering import number, percent
from projector.residual.layer_image.image import LayerImage

_MOST_SIGNS = 160


def title_of(image: LayerImage, *, of_models: bool = True) -> str:
    """The title of a picture.

    Args:
        of_models: whether to name the model; if several are drawn, each has its own caption.
    """
    token = image.token or "one token"
    first, last = (_frame_words(name) for name in (image.names[0], image.names[-1]))
    model = f" of {image.model}" if image.model and of_models else ""
    return f"{token[0].upper()}{token[1:]} from {first} to {last}{model}"


def prompt_words(image: LayerImage) -> str:
    """The end of the prompt, where most tokens of interest are."""
    text = readable(image.prompt)
    if len(text) > _MOST_SIGNS:
        text = f"…{text[-_MOST_SIGNS:]}"
    return f"Prompt: ‘{text}’" if text else ""


def reading_words(image: LayerImage, *, in_bands: bool) -> str:
    """Describe the numbers, and explain how to read the picture."""
    n_frames, n_hidden = image.shape
    _, n_rows, width = image.values.shape
    n_layers = n_frames - 1
    layers = f"{n_layers:,} {'layer' if n_layers == 1 else 'layers'}"
    frame = "Each band is" if in_bands else "Each frame is"
    rows = "one row" if n_rows == 1 else f"{n_rows:,} rows"
    dimensions = "dimension" if width == 1 else "dimensions"
    lines = "" if n_rows == 1 else ", read like lines of text"
    return (
        f"{layers} × {n_hidden:,} hidden dimensions of the residual stream. {frame} the state "
        f"at the embedding or after a layer: {rows} of {width:,} {dimensions}{lines}."
    )


def range_words(images: Sequence[LayerImage]) -> str:
    """Describe the range of colours, and the clipped values."""
    first = images[0]
    share = f"{100 * first.quantile:.4g} %"
    clipped = float(np.mean([each.clipped for each in images]))
    if not any(each.high.any() for each in images):
        if first.is_difference:
            return "All values are 0. The two models are equal here."
        return "All values are 0."
    if first.range == "all":
        end = number(float(first.high[0]))
        text = f"Colours are from −{end} to {end}; {share} of all magnitudes are in this range."
    else:
        text = f"Each layer has its own range; {share} of its magnitudes are in that range."
    if not clipped:
        return f"{text} No value is clipped."
    text += f" {percent(clipped)} of the values are clipped"
    each = np.mean([each.clipped for each in images], axis=0)
    most = int(each.argmax())
    if first.range == "all" and each[most] > 2 * clipped:
        where = _frame_words(first.names[most])
        text += f", most of them at {where} ({percent(float(each[most]))} of its values)"
    return f"{text}."


def largest_words(images: Sequence[LayerImage]) -> str:
    """Name the hidden dimension with the largest magnitude in all images, with its layer and, for
    several images, its model; nothing if all values are 0.
    """
    found = [(image, i, *image.largest(i)) for image in images for i in range(len(image.names))]
    image, frame, dimension, value = max(found, key=lambda each: abs(each[3]))
    if not value:
        return ""
    kind = "difference" if image.is_difference else "value"
    model = f" of {image.model}" if len(images) > 1 and image.model else ""
    where = f"{_frame_words(image.names[frame])}{model}"
    return f"The largest {kind} is {number(value)}, in dimension {dimension:,} at {where}."


def _frame_words(name: str) -> str:
    return "the embedding" if name == "embedding" else name
