"""All layers of one token as one image: layers × hidden dimensions, folded into rows.

A hidden state is a long vector: each frame is folded into rows of equal width, like text into
lines, and colours are centred at 0 with a symmetric range. A few hidden dimensions have values
hundreds of times larger than the rest (Sun et al. 2024, "Massive Activations in Large Language
Models"). The range is a quantile of magnitudes, so that these are clipped and the rest is visible.
The clipped values are counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, inf, log
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from projector.errors import SettingError, UserError, named
from projector.residual.layer_image.ranges import QUANTILE, check_image

# What a picture has room for, in pixels: rows and columns are chosen for it.
ROOM = (2000, 2000)
MOST_PIXELS_OF_A_CELL = 10
# Pixels between two frames.
BETWEEN = 5
# Of the rows and columns of all frames together.
_LIKED_ASPECT = 1.5

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class LayerImage:
    """One state per frame, folded into rows, with the range of its colours.

    Attributes:
        values: (F, R, C) float32, the F frames folded into R rows of C columns; NaN in the last
            row's cells after the last hidden dimension. In units of the model's stream.
        n_hidden: H, the number of hidden dimensions; R·C ≥ H.
        names: names of the F frames: "embedding", "layer 0", ….
        range: "all", one range for all frames; "per-layer", one for each frame.
        quantile: the share of magnitudes within the range, 0.5 < quantile ≤ 1.
        low: (F,) float64, the value of each frame's lowest colour, −high.
        high: (F,) float64, the value of each frame's highest colour; 0 if all values are 0.
        clipped: (F,) float64, the share of a frame's values outside its range.
        model: name of the model; "" if unknown.
        token: the token or "the mean", for a title.
        prompt: the text of the prompt; "" if unknown.
        is_difference: whether these are differences of two models' states.
        note: a remark, such as the tokens that a mean leaves out.
    """

    values: Floats
    n_hidden: int
    names: tuple[str, ...]
    range: str
    quantile: float
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    clipped: NDArray[np.float64]
    model: str = ""
    token: str = ""
    prompt: str = ""
    is_difference: bool = False
    note: str = ""

    @property
    def vectors(self) -> Floats:
        """The states before folding, (F, H) float32."""
        return self.values.reshape(len(self.values), -1)[:, : self.n_hidden]

    @property
    def clipped_share(self) -> float:
        """The share of all values outside their frame's range."""
        return float(self.clipped.mean())

    @property
    def shape(self) -> tuple[int, int]:
        """F frames and H hidden dimensions."""
        return len(self.values), self.n_hidden

    def folded(self, width: int) -> LayerImage:
        """The same image with another row width."""
        return replace(self, values=fold_rows(self.vectors, width))

    def largest(self, frame: int) -> tuple[int, float]:
        """The hidden dimension with the largest magnitude in a frame, and its value."""
        vector = self.vectors[frame]
        dimension = int(np.abs(vector).argmax())
        return dimension, float(vector[dimension])

    def as_dict(self) -> dict[str, Any]:
        """Convert to JSON values, without the image's values."""
        frames = []
        for i, name in enumerate(self.names):
            dimension, value = self.largest(i)
            frames.append(
                {
                    "name": name,
                    "low": float(self.low[i]),
                    "high": float(self.high[i]),
                    "clipped": float(self.clipped[i]),
                    "norm": float(np.linalg.norm(self.vectors[i].astype(np.float64))),
                    "largest": {"dimension": dimension, "value": value},
                }
            )
        is_one = self.range == "all"
        return {
            "model": self.model,
            "token": self.token,
            "shape": list(self.shape),
            "rows": self.values.shape[1],
            "columns": self.values.shape[2],
            "range": self.range,
            "quantile": self.quantile,
            "low": float(self.low[0]) if is_one else None,
            "high": float(self.high[0]) if is_one else None,
            "clipped": self.clipped_share,
            "frames": frames,
        }


def layer_image(
    states: Tensor | Floats,
    *,
    fold: int | None = None,
    range: str = "all",
    quantile: float = QUANTILE,
    names: Sequence[str] | None = None,
    model: str = "",
    token: str = "",
    prompt: str = "",
    note: str = "",
) -> LayerImage:
    """Make an image of the states of one token, or of a mean, in all frames.

    Args:
        states: (F, H) floats, the embedding and the output of each layer.
        fold: hidden dimensions per row; None to choose a width that suits the picture.
        range: "all", one symmetric range for all frames; "per-layer", one for each.
        quantile: the share of magnitudes within the range, 0.5 < quantile ≤ 1. If most are 0, it is
            computed over non-zero magnitudes.
        names: names of the frames; None for "embedding", "layer 0", ….
        model: name of the model, for the title.
        token: description of the token, such as "token 5 ‘␣in’", for the title.
        prompt: the text, for the line below it.
        note: a sentence for the line below the prompt.

    Raises:
        SettingError: on ``range``, ``quantile`` or ``fold``.
        UserError: if a state is not finite.
    """
    (found,) = layer_images([states], fold=fold, range=range, quantile=quantile, names=names)
    return replace(found, model=model, token=token, prompt=prompt, note=note)


def layer_images(
    several: Sequence[Tensor | Floats],
    *,
    fold: int | None = None,
    range: str = "all",
    quantile: float = QUANTILE,
    names: Sequence[str] | None = None,
    models: Sequence[str] = (),
    token: str = "",
    prompt: str = "",
    note: str = "",
    n_panels: int = 1,
) -> list[LayerImage]:
    """Make images of several models' states with the same shape and the same range of colours.

    Args:
        several: the states, (F, H) each; see :func:`layer_image` for the other arguments.
        range: "all", one range for all models and frames; "per-layer", one for each frame, over all
            models.
        n_panels: number of images drawn next to each other, for choosing the number of columns.

    Raises:
        ValueError: if the shapes differ, or the number of names is wrong.
    """
    check_image(range, quantile, fold)
    arrays = [_as_array(states) for states in several]
    shape = arrays[0].shape
    if any(each.shape != shape for each in arrays):
        raise ValueError(f"states of several shapes: {[each.shape for each in arrays]}")
    frames = tuple(frame_names(shape[0]) if names is None else names)
    if len(frames) != shape[0]:
        raise ValueError(f"{len(frames)} names for {shape[0]} frames")
    for each in arrays:
        _check_finite(each, frames)
    width = fold or choose_fold(shape[1], shape[0], n_panels)
    magnitudes = np.abs(np.stack(arrays).astype(np.float64))
    per_frame = magnitudes.transpose(1, 0, 2).reshape(shape[0], -1)
    if range == "all":
        high = np.full(shape[0], _range_of(magnitudes, quantile))
    else:
        high = np.array([_range_of(each, quantile) for each in per_frame])
    return [
        LayerImage(
            values=fold_rows(each, width),
            n_hidden=shape[1],
            names=frames,
            range=range,
            quantile=quantile,
            low=-high,
            high=high,
            clipped=(np.abs(each.astype(np.float64)) > high[:, None]).mean(axis=1),
            model=models[i] if models else "",
            token=token,
            prompt=prompt,
            note=note,
        )
        for i, each in enumerate(arrays)
    ]


def difference(a: LayerImage, b: LayerImage) -> LayerImage:
    """The difference ``b`` − ``a``, frame by frame, with its own symmetric range.

    Raises:
        SettingError: on ``against``, if the two have different shapes.
    """
    check_shapes(a.shape, b.shape, b.model or "the other model", setting="against")
    found = layer_image(
        b.vectors - a.vectors,
        fold=a.values.shape[2],
        range=a.range,
        quantile=a.quantile,
        names=a.names,
        model=b.model,
        token=a.token,
    )
    return replace(found, prompt=a.prompt, note=a.note, is_difference=True)


def check_shapes(
    first: tuple[int, int], other: tuple[int, int], name: str, *, setting: str
) -> None:
    """Raise a SettingError on ``setting`` if two models have different shapes.

    Args:
        first: frames and hidden dimensions of the first model.
        other: the same for the model ``name``.
    """
    if first != other:
        words = [
            f"{n_frames - 1:,} layers × {n:,} hidden dimensions" for n_frames, n in (first, other)
        ]
        raise SettingError(
            setting, name, f"has {words[1]}", f"give a model of {words[0]}, like the first one"
        )


def frame_names(n_frames: int) -> tuple[str, ...]:
    """Names of frames: "embedding", "layer 0", …."""
    return ("embedding", *(f"layer {i}" for i in range(n_frames - 1)))


def fold_rows(vectors: Floats, width: int) -> Floats:
    """Fold vectors (F, H) to (F, R, width), with R = ⌈H / width⌉ rows and NaN after H."""
    n_frames, n_hidden = vectors.shape
    n_rows = ceil(n_hidden / width)
    padded = np.full((n_frames, n_rows * width), np.nan, dtype=np.float32)
    padded[:, :n_hidden] = vectors
    return padded.reshape(n_frames, n_rows, width)


def choose_fold(
    n_hidden: int,
    n_frames: int,
    n_panels: int = 1,
    *,
    room: tuple[int, int] = ROOM,
    most: int = MOST_PIXELS_OF_A_CELL,
) -> int:
    """Choose the number of columns with the largest square cells, if frames are bands of rows, one
    below another.

    For ties, the image is about one and a half times as wide as high. A partly filled last row
    counts as a fifth smaller cells.

    Args:
        n_panels: number of images next to each other.
        room: total width and height of the cells, in pixels.
        most: largest side of a cell, in pixels.
    """
    best, best_rank = n_hidden, (-inf, -inf)
    for n_rows in range(1, n_hidden + 1):
        width = ceil(n_hidden / n_rows)
        cell = cell_pixels((n_frames, n_rows, width), n_panels, room=room, most=most)
        aspect = n_panels * width / (n_frames * n_rows)
        size = cell if n_hidden % width == 0 else 0.8 * cell
        if not cell:
            # Nothing may fit: then the picture is larger by as little as possible.
            size = -max(n_panels * width / room[0], n_frames * (n_rows + BETWEEN) / room[1])
        rank = (size, -abs(log(aspect / _LIKED_ASPECT)))
        if rank > best_rank:
            best, best_rank = width, rank
    return best


def cell_pixels(
    shape: tuple[int, int, int],
    n_panels: int = 1,
    *,
    room: tuple[int, int] = ROOM,
    most: int = MOST_PIXELS_OF_A_CELL,
) -> int:
    """The side of a cell in pixels, for frames × rows × columns in a given size; 0 if none fits."""
    n_frames, n_rows, width = shape
    room_x, room_y = room[0] // n_panels, room[1] // n_frames - BETWEEN
    return max(0, min(room_x // width, room_y // n_rows, most))


def check_room(fold: int | None, shape: tuple[int, int], n_panels: int = 1) -> None:
    """Raise a SettingError on ``fold`` if rows of this width don't fit into a picture.

    Args:
        shape: frames and hidden dimensions.
    """
    n_frames, n_hidden = shape
    if fold is None:
        return
    best = choose_fold(n_hidden, n_frames, n_panels)
    if not cell_pixels((n_frames, ceil(n_hidden / fold), fold), n_panels):
        raise SettingError("fold", fold, "does not fit into a picture", f"give for example {best}")


def _as_array(states: Tensor | Floats) -> Floats:
    array = states.detach().float().cpu().numpy() if isinstance(states, Tensor) else states
    if array.ndim != 2 or not array.size:
        raise ValueError(f"states must be (F, H), but these are {tuple(array.shape)}")
    return np.asarray(array, dtype=np.float32)


def _check_finite(states: Floats, names: Sequence[str]) -> None:
    wrong = ~np.isfinite(states).all(axis=1)
    if wrong.any():
        name = names[int(wrong.argmax())]
        where = "the embedding has" if name == "embedding" else f"{name} gives"
        raise UserError(
            f"{where} numbers that are not finite: try {named('dtype', 'float32')}", setting="dtype"
        )


def _range_of(magnitudes: NDArray[np.float64], quantile: float) -> float:
    """The magnitude that a share of all is within; 0 if all are 0."""
    # A number that is there, not one between two: where as many as may be clipped are huge, half of
    # a huge number would be the range.
    found = float(np.quantile(magnitudes, quantile, method="lower"))
    if found == 0 and magnitudes.any():
        return float(np.quantile(magnitudes[magnitudes > 0], quantile, method="lower"))
    return found
