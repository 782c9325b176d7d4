"""Turn numbers of neurons into bytes that the map draws."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from projector.figures.axes import shown_axes

Floats = NDArray[np.floating]


def text_of(values: NDArray[np.generic]) -> str:
    """Base64 text of the bytes, which a component receives unchanged."""
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")


def id_of(*values: NDArray[np.generic]) -> str:
    """An id that is equal for equal numbers."""
    digest = hashlib.sha256()
    for each in values:
        digest.update(f"{each.dtype}{each.shape}".encode())
        digest.update(np.ascontiguousarray(each).tobytes())
    return digest.hexdigest()[:16]


def in_three(positions: Tensor) -> NDArray[np.float32]:
    """Points to draw for (N, d) positions: (N, 3) float32; zeros for missing dimensions, NaN for
    neurons without a position.

    With more than three dimensions, the principal axes are drawn, as in every picture; see
    :func:`projector.figures.axes.shown_axes`.
    """
    shown = shown_axes(positions).numpy()
    result = np.zeros((len(shown), 3), dtype=np.float32)
    result[:, : shown.shape[1]] = shown
    # A neuron without a position has none in any dimension.
    result[~np.isfinite(shown).all(axis=1)] = np.nan
    return result


def frame_of(points: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The centre of the box around (N, 3) points, and its half widths: (3,) each.

    A map is drawn about its own centre and in its own scale, because layouts need not be centred.
    """
    placed = points[np.isfinite(points).all(axis=1)].astype(np.float64)
    if not len(placed):
        return np.zeros(points.shape[1]), np.ones(points.shape[1])
    least, most = placed.min(axis=0), placed.max(axis=0)
    return (least + most) / 2, (most - least) / 2


def bounds(values: Floats, low: float = 0.01, high: float = 0.99) -> tuple[float, float]:
    """Quantiles of the finite values, so that a few extreme values don't make the rest pale."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    least, most = (float(q) for q in np.quantile(finite, (low, high)))
    return (least, most) if most > least else (least, least + 1.0)


def to_bytes(values: Floats, least: float, most: float) -> NDArray[np.uint8]:
    """Map values between two bounds to 0 … 255; NaN becomes 0."""
    scaled = (np.nan_to_num(values, nan=least, posinf=most, neginf=least) - least) / (most - least)
    return np.round(np.clip(scaled, 0, 1) * 255).astype(np.uint8)


def to_signed(values: Floats, scale: float) -> NDArray[np.int8]:
    """Map values to −127 … 127, with ``scale`` at 127."""
    if scale <= 0:
        return np.zeros(values.shape, dtype=np.int8)
    finite = np.nan_to_num(values, nan=0.0, posinf=scale, neginf=-scale)
    return np.round(np.clip(finite / scale, -1, 1) * 127).astype(np.int8)


@dataclass(frozen=True, eq=False)
class Frames:
    """Values of T tokens, encoded for drawing.

    Attributes:
        values: (T, N) int8, −127 to 127.
        scale: the value of 127.
        id: equal for equal values.
    """

    values: NDArray[np.int8]
    scale: float
    id: str


def frames_of(values: Floats, scale: float | None = None) -> Frames:
    """Encode (T, N) values; without ``scale``, with a scale from the values."""
    scale = scale_of(values) if scale is None else scale
    drawn = to_signed(values.astype(np.float32), scale)
    return Frames(drawn, scale, id_of(drawn))


def scale_of(values: Floats, quantile: float = 0.999) -> float:
    """A magnitude that few values exceed, for the end of a colour scale."""
    finite = np.abs(values[np.isfinite(values)])
    if not finite.size:
        return 1.0
    return float(np.quantile(finite, quantile)) or float(finite.max()) or 1.0
