"""The viewer's windows: one box, a scale that follows the frames, or the density's window."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from projector.figures.layers.cloud.densities import read_clouds
from projector.figures.layers.cloud.shading import words_of

# The share of a frame's contributions that their view fits.
_FITTED = 0.95
Floats = NDArray[np.float64]


def box_of(
    positions: NDArray[np.float32], there: NDArray[np.bool_], outliers: NDArray[np.bool_]
) -> tuple[list[float], list[float]]:
    """The middle and half sides of the box around all particles except outliers.

    Args:
        positions: (…, N, 3); ``there`` is (…, N).
    """
    there = there & np.isfinite(positions).all(axis=-1)
    points = positions[there & ~outliers]
    if not len(points):
        points = positions[there]
    if not len(points):
        return [0.0] * 3, [1.0] * 3
    least, most = points.min(axis=0).astype(float), points.max(axis=0).astype(float)
    reach = np.maximum((most - least) / 2, 1e-6)
    return ((least + most) / 2).tolist(), reach.tolist()


def followed(
    positions: NDArray[np.float32],
    there: NDArray[np.bool_],
    outliers: NDArray[np.bool_],
    dim: int,
) -> dict[str, Any]:
    """A view with a scale that follows the frames, around one fixed centre.

    The centre is the middle of the frame around which all frames are shown largest: it minimises
    the sum over frames of the logarithm of the ratio of the view's width to the frame's.

    Args:
        positions: (F, N, 3); ``there`` is (F, N).

    Returns:
        ``middle`` and ``reach`` of the widest frame's view (3 each), and ``magnified`` (F), the
        magnification of each frame compared with that view, at least 1.
    """
    boxes = [box_of(each, seen, outliers) for each, seen in zip(positions, there, strict=True)]
    middles, reaches = (np.array([box[k] for box in boxes]) for k in (0, 1))
    # (F, F, 3): half sides of a view about the c-th frame's middle that holds the f-th frame.
    halves = np.abs(middles[None] - middles[:, None]) + reaches[None]
    wide = np.log(halves.max(axis=2) / reaches.max(axis=1)).sum(axis=1)
    centre = int(wide.argmin())
    half = halves[centre]
    reach = half.max(axis=0)
    # A flat view has a scale for each side; one in depth is as wide as its longest.
    share = (half / reach)[:, :2].max(axis=1) if dim < 3 else half.max(axis=1) / reach.max()
    return {
        "middle": middles[centre].tolist(),
        "reach": reach.tolist(),
        "magnified": (1 / share).tolist(),
    }


def parts_view(
    positions: NDArray[np.float32],
    there: NDArray[np.bool_],
    outliers: NDArray[np.bool_],
    dim: int,
) -> dict[str, Any]:
    """The view of contributions without their sums, which may be a hundred times farther away.

    In each frame, it fits the 95 % of contributions closest to their median, because most are
    short.

    Args:
        positions: (F, P, 3) of contributions; ``there`` is (F, P), ``outliers`` (P,).

    Returns:
        ``middle`` and ``reach`` of all frames, ``followed`` from :func:`followed`, and ``words``.
    """
    within = np.zeros_like(there)
    known = there & ~outliers & np.isfinite(positions).all(axis=-1)
    for f, own in enumerate(known):
        if not own.any():
            continue
        points = positions[f, own].astype(np.float64)
        far = np.linalg.norm(points - np.median(points, axis=0), axis=1)
        n = int(np.ceil(_FITTED * len(far)))
        within[f, np.flatnonzero(own)[np.argsort(far, kind="stable")[:n]]] = True
    # A frame of outliers alone shows these.
    within[~within.any(axis=1)] = there[~within.any(axis=1)]
    middle, reach = box_of(positions, within, np.zeros_like(outliers))
    return {
        "middle": middle,
        "reach": reach,
        "followed": followed(positions, within, np.zeros_like(outliers), dim),
        "words": (
            f"The view fits {_FITTED:.0%} of the contributions. A sum outside the view is marked "
            "at the edge; “Fit sums” shows it."
        ).replace("%", " %", 1),
    }


def density_of(
    report: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]
) -> dict[str, Any] | None:
    """Windows, spreads and the scale of the film ``density.gif``, for showing the same density.

    Returns:
        ``low`` and ``high`` (F, 2), ``spread`` (F), ``bandwidth``, ``follows`` as
        :class:`~projector.figures.layers.cloud.densities.Clouds` has them; ``highest``, the density
        of full colour; and ``words``, an explanation. None if no particle can be shown.
    """
    clouds = read_clouds(report, tensors)
    if clouds is None:
        return None
    highest = clouds.highest()
    return {
        "low": clouds.low.tolist(),
        "high": clouds.high.tolist(),
        "spread": clouds.spread.tolist(),
        "bandwidth": clouds.bandwidth,
        "follows": clouds.follows,
        "highest": highest,
        "words": words_of(clouds, highest),
    }
