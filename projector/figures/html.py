"""Figures become HTML files that need no network."""

from __future__ import annotations

from pathlib import Path

import plotly.graph_objects as go

from projector.figures.heatmap import heatmap_figure
from projector.figures.map import map_figure
from projector.figures.trust import stress_figure
from projector.projection.projection import Projection
from projector.storage.places import disk_errors
from projector.storage.replacing import replacing_file


def write_figure(figure: go.Figure, path: Path) -> None:
    """Write HTML that needs no network; replaced in one step.

    Raises:
        UserError: if the disk is full or the file can't be written. What was there is as it was.
    """
    text = figure.to_html(include_plotlyjs=True, full_html=True)
    with disk_errors(path), replacing_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_pictures(projection: Projection, folder: Path) -> list[Path]:
    """A map of every site, the trust strips, and the heatmap of one layer of the first site.

    They show the first layout. There is no heatmap where no correlations were kept.

    Returns:
        The files that were written, in ``folder``.

    Raises:
        UserError: if one can't be written.
    """
    pictures: dict[str, go.Figure] = {
        f"map-{site}.html": map_figure(projection, site) for site in projection.sites
    }
    pictures["trust.html"] = stress_figure(projection)
    clearest = _clearest_map(projection)
    if clearest is not None:
        layer, site = clearest
        pictures[f"heatmap-layer{layer}-{site}.html"] = heatmap_figure(projection, layer, site)
    for name, figure in pictures.items():
        write_figure(figure, folder / name)
    return [folder / name for name in pictures]


def _clearest_map(projection: Projection) -> tuple[int, str] | None:
    """Of the first site that has correlations, the layer whose map follows them best."""
    for site in projection.sites:
        maps = [m for m in projection.maps if m[1] == site and projection.has_statistics_of(*m)]
        if maps:
            return max(maps, key=lambda m: projection.figures(*m).rank_correlation or -1.0)
    return None
