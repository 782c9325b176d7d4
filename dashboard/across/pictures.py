"""Plotly figures of the layer × layer matrix, and of its mean over the distance of layers."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from dashboard.across.measures import Measure, Value, by_distance, matrix
from dashboard.drawing import palette
from projector.statistics.cross_layer.records import CrossLayerFacts, LayerPair

# Most layers with a tick, and most layers whose cells have gaps: with more, gaps would dominate.
_MOST_TICKS, _MOST_APART = 8, 16
_FRAME = "#d0434b"
# Distant colours of maps for the neurons and both controls.
_LINES = (
    {"color": "#0072B2", "width": 2, "dash": "solid"},
    {"color": "#E69F00", "width": 1.5, "dash": "dot"},
    {"color": "#009E73", "width": 1.5, "dash": "dot"},
)


def highest(facts: CrossLayerFacts, measure: Measure) -> float:
    """The upper end of the colour scale that all matrices of a measure share."""
    known = [value(pair) for value in measure.panels.values() for pair in facts.pairs]
    return max((each for each in known if each is not None), default=0.0) or 1.0


def matrix_figure(
    facts: CrossLayerFacts,
    measure: Measure,
    title: str,
    limit: float,
    chosen: LayerPair | None,
    *,
    dark: bool = False,
) -> go.Figure:
    """One matrix of a measure: rows are later layers, columns earlier ones.

    Args:
        title: title of one of the measure's panels.
        limit: the value of the last colour; the first colour is 0.
        chosen: the two layers whose cell has a frame.
    """
    # The last layer is not an earlier layer of any pair, nor the first one a later layer.
    earlier, later = facts.layers[:-1], facts.layers[1:]
    gap = int(len(later) <= _MOST_APART)
    is_first = title == next(iter(measure.panels))
    table = palette.sequential(dark=dark)
    figure = go.Figure(
        go.Heatmap(
            z=matrix(facts, measure.panels[title])[1:, :-1],
            x=list(range(len(earlier))),
            y=list(range(len(later))),
            zmin=0,
            zmax=limit,
            colorscale=[[k / 8, palette.hex_of(table, min(255, 32 * k))] for k in range(9)],
            showscale=is_first,
            colorbar={
                "orientation": "h",
                "thickness": 12,
                "len": 220,
                "lenmode": "pixels",
                "x": 1.0,
                "xanchor": "right",
                "y": 1.0,
                "yanchor": "top",
                "tickvals": [0, limit / 2, limit],
                "ticktext": [measure.text(each) for each in (0, limit / 2, limit)],
                "title": {"text": measure.axis, "side": "top", "font": {"size": 12}},
            },
            customdata=_hover_texts(facts, measure)[1:, :-1],
            hovertemplate="%{customdata}<extra></extra>",
            hoverongaps=False,
            xgap=gap,
            ygap=gap,
        )
    )
    if chosen is not None:
        row, column = later.index(chosen.later), earlier.index(chosen.earlier)
        figure.add_shape(
            type="rect",
            x0=column - 0.5,
            x1=column + 0.5,
            y0=row - 0.5,
            y1=row + 0.5,
            line={"color": _FRAME, "width": 2},
        )
    across, down = _axis(earlier, "earlier layer"), _axis(later, "later layer")
    figure.update_layout(
        title={"text": title, "x": 0.02, "y": 0.98, "yanchor": "top", "font": {"size": 15}},
        margin={"l": 10, "r": 10, "t": 34, "b": 10},
        xaxis=across | {"constraintoward": "left"},
        yaxis=down | {"range": down["range"][::-1], "scaleanchor": "x", "constraintoward": "top"},
        dragmode=False,
        plot_bgcolor="rgba(0,0,0,0)",
        uirevision=f"across {title} {len(later)}",
    )
    return figure


def _axis(layers: Sequence[int], title: str) -> dict[str, Any]:
    n = len(layers)
    step = next((each for each in (1, 2, 5, 10, 20) if n <= _MOST_TICKS * each), 50)
    ticks = [k for k, layer in enumerate(layers) if step == 1 or layer % step == 0]
    return {
        "title": {"text": title, "standoff": 12},
        "tickmode": "array",
        "tickvals": ticks,
        "ticktext": [str(layers[k]) for k in ticks],
        "range": [-0.5, n - 0.5],
        "constrain": "domain",
        "showgrid": False,
        "zeroline": False,
        "tickangle": 0,
    }


def _hover_texts(facts: CrossLayerFacts, measure: Measure) -> NDArray[Any]:
    """The hover text of each cell: (L, L), in Plotly's HTML."""
    place = {layer: k for k, layer in enumerate(facts.layers)}
    found = np.full((len(place), len(place)), "", dtype=object)
    for pair in facts.pairs:
        lines = [f"<b>Layers {pair.earlier} and {pair.later}</b>"]
        for title, value in measure.panels.items():
            known = value(pair)
            if known is not None:
                lines.append(f"{title}: {measure.text(known)}")
        if pair.reason is not None:
            lines.append(html.escape(pair.reason, quote=False))
        found[place[pair.later], place[pair.earlier]] = "<br>".join(lines)
    return found


def distance_figure(facts: CrossLayerFacts, measure: Measure) -> go.Figure:
    """The mean of a measure over pairs of layers at each distance, with controls."""
    figure = go.Figure()
    for (title, value), line in zip(measure.panels.items(), _LINES, strict=False):
        figure.add_trace(_line(facts, measure, title, value, line))
    figure.update_layout(
        height=260,
        margin={"l": 10, "r": 10, "t": 10, "b": 10},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        hovermode="closest",
        xaxis={
            "title": {"text": "distance of the two layers", "standoff": 4},
            "tickformat": "d",
            "rangemode": "tozero",
            "zeroline": False,
        },
        yaxis={
            "title": {"text": measure.axis, "standoff": 4},
            "rangemode": "tozero",
            "tickformat": measure.form,
        },
    )
    return figure


def _line(
    facts: CrossLayerFacts, measure: Measure, title: str, value: Value, line: dict[str, Any]
) -> go.Scatter:
    points = by_distance(facts, value)
    return go.Scatter(
        x=[each.distance for each in points],
        y=[each.mean for each in points],
        mode="lines+markers",
        name=title,
        line=line,
        marker={"size": 5},
        customdata=[
            f"{title}: {measure.text(each.mean)}<br>layers {each.distance} apart, "
            + ("1 pair" if each.n_pairs == 1 else f"mean of {each.n_pairs} pairs")
            for each in points
        ],
        hovertemplate="%{customdata}<extra></extra>",
    )
