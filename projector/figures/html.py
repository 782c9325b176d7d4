"""Write figures as HTML files that need no network."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import plotly.graph_objects as go

from projector.figures.heatmap import heatmap_figure
from projector.figures.map import map_figure
from projector.figures.trust import stress_figure
from projector.projection.projection import Projection
from projector.projection.writing import PICTURE_MARK
from projector.storage.places import disk_errors
from projector.storage.replacing import replacing_file


def write_figure(figure: go.Figure, path: Path) -> None:
    """Write HTML that needs no network and is marked as made by this program, atomically.

    Raises:
        UserError: if the disk is full or the file can't be written. What was there is as it was.
    """
    text = figure.to_html(include_plotlyjs=True, full_html=True)
    text = text.replace("<head>", f"<head>\n    {PICTURE_MARK}", 1)
    with disk_errors(path), replacing_file(path) as new:
        new.write_text(text, encoding="utf-8")


def write_pictures(
    projection: Projection, folder: Path, *, only_missing: bool = False
) -> list[Path]:
    """Write a map of every site and layout, the trust strips, and the heatmap of one layer.

    The heatmap shows a layer of the first site; there is none if no correlations were kept. A map's
    file is ``map-<site>.html``; with several layouts, ``map-<site>-<layout>.html``.

    Args:
        only_missing: keep existing files.

    Returns:
        The written files, in ``folder``.

    Raises:
        UserError: if a file can't be written.
    """
    several = len(projection.layouts) > 1
    pictures: dict[str, Callable[[], go.Figure]] = {
        f"map-{site}-{name}.html" if several else f"map-{site}.html": partial(
            map_figure, projection, site, layout=name
        )
        for name in projection.layouts
        for site in projection.sites
    }
    pictures["trust.html"] = partial(stress_figure, projection)
    clearest = _clearest_map(projection)
    if clearest is not None:
        layer, site = clearest
        name = f"heatmap-layer{layer}-{site}.html"
        pictures[name] = partial(heatmap_figure, projection, layer, site)
    written: list[Path] = []
    for name, draw in pictures.items():
        if not (only_missing and (folder / name).exists()):
            write_figure(draw(), folder / name)
            written.append(folder / name)
    return written


def _clearest_map(projection: Projection) -> tuple[int, str] | None:
    """Of the first site that has correlations, the layer whose map follows them best."""
    for site in projection.sites:
        maps = [m for m in projection.maps if m[1] == site and projection.has_statistics_of(*m)]
        if maps:
            return max(maps, key=lambda m: projection.figures(*m).rank_correlation or -1.0)
    return None
