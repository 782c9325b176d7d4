"""The map of a site with one point per neuron, in 1-D, 2-D or 3-D."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go

from projector.figures.axes import shown_axes
from projector.figures.words import TEMPLATE, heading, map_title, names_of
from projector.naming.names import Names
from projector.projection.projection import Projection


def map_figure(
    projection: Projection,
    site: str,
    layers: list[int] | None = None,
    layout: str | None = None,
    names: Names | None = None,
) -> go.Figure:
    """Draw the map of a site in 3-D, 2-D or 1-D, with a slider for several layers.

    Points are coloured by the standard deviation of their activation, if statistics were kept. Maps
    with more than three dimensions show their three principal axes with the largest variance, and
    the title says so.

    Args:
        layers: None for all.
        layout: the layout's name; None for the first.
        names: names given by the user.

    Raises:
        UserError: if the map or the layout doesn't exist.
    """
    chosen = [n for n, s in projection.maps if s == site and (layers is None or n in layers)]
    if not chosen:
        projection.positions((layers or projection.layers)[0], site)  # raises, naming what is wrong
    figure = go.Figure([_map_trace(projection, layer, site, layout, names) for layer in chosen])
    for i, trace in enumerate(figure.data):
        trace.visible = i == 0
    titles = [map_title(projection, layer, site, layout) for layer in chosen]
    figure.update_layout(
        template=TEMPLATE,
        title=heading(titles[0], y=0.97, yanchor="top"),
        margin={"l": 10, "r": 10, "t": 110, "b": 10},
        height=820,
        showlegend=False,
    )
    _set_axes(figure, projection.layout(layout).settings.dim)
    if len(chosen) > 1:
        figure.update_layout(sliders=[_slider(chosen, titles)], margin_b=90)
    return figure


def _set_axes(figure: go.Figure, dim: int) -> None:
    """Axes of one scale, so that distances are what they are on the map."""
    if dim >= 3:
        axis = {"title": "", "showticklabels": True, "nticks": 5}
        camera = {"eye": {"x": 1.05, "y": 1.05, "z": 0.75}}
        axes = {f"{name}axis": axis for name in "xyz"}
        figure.update_layout(scene={"aspectmode": "data", "camera": camera, **axes})
    elif dim == 2:
        figure.update_yaxes(scaleanchor="x")
    else:
        figure.update_layout(
            xaxis_title="position", yaxis_title="standard deviation of the activation"
        )


def _slider(layers: list[int], titles: list[str]) -> dict[str, Any]:
    """Shows one layer at a time, and its title."""
    steps = [
        {
            "label": str(layer),
            "method": "update",
            "args": [
                {"visible": [j == i for j in range(len(layers))]},
                {"title.text": titles[i]},
            ],
        }
        for i, layer in enumerate(layers)
    ]
    return {"steps": steps, "currentvalue": {"prefix": "layer "}, "pad": {"t": 20}}


def _map_trace(
    projection: Projection, layer: int, site: str, layout: str | None, given: Names | None
) -> go.Scatter3d | go.Scatter:
    """A point for each neuron that has a position."""
    positions = projection.positions(layer, site, layout)
    defined = positions.isfinite().all(dim=1).nonzero()[:, 0]
    points = shown_axes(positions)[defined].numpy()
    labels = names_of(projection, layer, site, given)
    names = [f"L{layer} N{i} {labels[i]}".rstrip() for i in defined.tolist()]
    marker: dict[str, Any] = {"size": 3, "opacity": 0.85, "color": "#31688e"}
    hover = "%{text}<extra></extra>"
    spread = None
    if projection.has_statistics_of(layer, site):
        covariance = projection.covariance(layer, site)
        spread = covariance.diagonal()[defined].clamp(min=0).sqrt().numpy()
        marker |= {
            "color": np.log10(np.maximum(spread, 1e-12)),
            "colorscale": "Viridis",
            "colorbar": {
                "title": "standard deviation<br>of activation, log₁₀",
                "thickness": 14,
                "len": 0.6,
            },
        }
        hover = "%{text}<br>standard deviation 10^%{marker.color:.2f}<extra></extra>"
    common = {"mode": "markers", "text": names, "hovertemplate": hover}
    if points.shape[1] >= 3:
        x, y, z = points.T
        return go.Scatter3d(x=x, y=y, z=z, marker=marker, **common)
    marker["size"] = 6
    if points.shape[1] == 2:
        return go.Scatter(x=points[:, 0], y=points[:, 1], marker=marker, **common)
    height = np.zeros(len(points)) if spread is None else spread
    return go.Scatter(x=points[:, 0], y=height, marker=marker, **common)
