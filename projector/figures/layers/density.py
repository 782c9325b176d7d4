"""A film of the 2-D density of particles, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from projector.figures.layers.cloud.densities import read_clouds
from projector.figures.layers.cloud.shading import draw_densities, shades
from projector.figures.layers.film import Written, write_film

FILM = "density"
FRAMES_PER_SECOND = 3.0


def write_density(
    report: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]], folder: Path
) -> Written:
    """Write ``density.gif`` and ``density.mp4``: a kernel density of the particles' first two
    coordinates, with one frame for each frame of the stream.

    Args:
        report: the content of ``report.json`` of layer-time.
        tensors: the content of ``particles.safetensors``.

    Returns:
        The files, and a note if there is no MP4, or no particle to show.

    Raises:
        OSError: if a file can't be written.
    """
    clouds = read_clouds(report, tensors)
    if clouds is None:
        note = "The density was left out, because only outliers have positions"
        return Written((), note)
    return write_film(
        draw_densities(clouds),
        folder / FILM,
        fps=FRAMES_PER_SECOND,
        exact=shades(len(clouds.texts)),
    )
