"""Shared style of figures of two sets: colours for colour-blind readers, on white and on black;
bands, lines and axes of layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from projector.figures.contrast.series import Place

# One colour means one thing in every figure; each has a contrast of 3 to white and to black. Most
# are of Okabe and Ito (2008).
POSITIVE, NEGATIVE = "#0a7ac2", "#d55e00"
# What is of both sets, such as the cosine of their means and what tells one from the other.
SETS = "#0a8f6b"
# The stream before a block, what a block adds, and what its two halves add.
STREAM, UPDATE, ATTENTION, MLP = "#1293a5", "#7f6cc8", "#b8639a", "#6d8b1f"
# Controls: random directions, halves and rotations; and permuted labels.
NULL, PERMUTED = "#7d8590", "#a3742a"
_MOST_TICKS, _MOST_LINES = 12, 40
# Pixels of a line of a legend, and of a line of a panel's title.
_LINE, _TITLE = 19, 26
DEPTH_TITLE = "layer (open: after its attention; filled: after its MLP)"
_Values = Sequence[float | None]


def clear(color: str, opacity: float = 0.2) -> str:
    """A transparent version of a colour."""
    red, green, blue = (int(color[k : k + 2], 16) for k in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def add_band(
    figure: go.Figure,
    x: Sequence[float],
    low: _Values,
    high: _Values,
    color: str,
    name: str,
    **more: Any,
) -> None:
    """Add a filled band between two curves, unless either is unknown."""
    known = [
        (at, a, b) for at, a, b in zip(x, low, high, strict=True) if a is not None and b is not None
    ]
    if not known:
        return
    at = [each[0] for each in known]
    figure.add_scatter(
        x=at + at[::-1],
        y=[each[2] for each in known] + [each[1] for each in known][::-1],
        mode="lines",
        fill="toself",
        fillcolor=clear(color),
        # As wide as a mark, where there is one place alone.
        line={"width": 0 if len(known) > 1 else 7, "color": clear(color)},
        hoverinfo="skip",
        name=name,
        legendgroup=name,
        showlegend=False,
        **more,
    )


def add_places(
    figure: go.Figure,
    places: Sequence[Place],
    values: _Values,
    color: str,
    name: str,
    *,
    band: tuple[_Values, _Values] | None = None,
    form: str = ".3f",
    dash: str = "solid",
    mark: str = "circle",
    customdata: Sequence[str] | None = None,
    legend: bool = True,
    **more: Any,
) -> None:
    """Add a curve over points of the stream: the embedding separately as a diamond, the middle of a
    block as an open mark, all other points as filled marks; with a band, if there is one.
    """
    is_null = dash != "solid"
    tips = list(customdata or ("" for _ in places))
    for is_embedding in (True, False):
        chosen = [k for k, place in enumerate(places) if place.is_embedding == is_embedding]
        if not chosen or all(values[k] is None for k in chosen):
            continue
        if band is not None:
            low, high = ([ends[k] for k in chosen] for ends in band)
            add_band(figure, [places[k].depth for k in chosen], low, high, color, name, **more)
        symbols = [f"{mark}-open" if places[k].stream == "resid_mid" else mark for k in chosen]
        figure.add_scatter(
            x=[places[k].depth for k in chosen],
            y=[values[k] for k in chosen],
            mode="markers" if is_embedding else "lines" if is_null else "lines+markers",
            line={"color": color, "dash": dash, "width": 1.5 if is_null else 2},
            marker={
                "symbol": "diamond-open" if is_embedding else symbols,
                "size": 9 if is_embedding else 7,
                "color": color,
                "line": {"color": color, "width": 1.5},
            },
            text=[places[k].words for k in chosen],
            customdata=[tips[k] for k in chosen],
            name=name,
            legendgroup=name,
            showlegend=legend and not is_embedding,
            hovertemplate=f"%{{text}}: %{{y:{form}}}%{{customdata}}<extra>{name}</extra>",
            connectgaps=True,
            **more,
        )


def depth_axis(places: Sequence[Place]) -> dict[str, Any]:
    """Set up the axis of depth: block L reaches from L to L + 1, between two lines, with its number
    in the middle.
    """
    n_blocks = 1 + max((place.layer for place in places), default=0)
    # The embedding's mark is as wide in a deep model.
    margin = max(0.35, n_blocks / 40)
    step = _step(n_blocks)
    layers = range(0, n_blocks, step)
    return {
        "range": [-margin, n_blocks + margin],
        "tickvals": [layer + 0.5 for layer in layers],
        "ticktext": [str(layer) for layer in layers],
        "showgrid": False,
        "minor": {
            "tickvals": list(range(0, n_blocks + 1, 1 if n_blocks <= _MOST_LINES else step)),
            "showgrid": True,
            "gridcolor": clear(NULL, 0.2),
            "ticks": "",
        },
        "zeroline": False,
    }


def layer_axis(n_layers: int) -> dict[str, Any]:
    """Set up the axis of layers."""
    return {
        "title": {"text": "layer"},
        "range": [-0.6, n_layers - 0.4],
        "tickvals": list(range(0, n_layers, _step(n_layers))),
        "zeroline": False,
    }


def _step(n: int) -> int:
    return next(step for step in (1, 2, 5, 10, 20, 50, 100, n) if n <= _MOST_TICKS * step)


def lay_out(figure: go.Figure, height: int, *, top: int = 64, **more: Any) -> go.Figure:
    """Set margins, and put the legend above all panels, with ``top`` pixels for it and the
    titles.
    """
    figure.update_layout(
        template="plotly_white",
        height=height,
        margin={"l": 64, "r": 20, "t": top, "b": 56},
        legend={"orientation": "h", "x": 0, "y": 1, "yref": "container", "yanchor": "top"},
        hovermode="closest",
        **more,
    )
    figure.update_annotations(font_size=13)
    return figure


def name_panels(figure: go.Figure, *, n_rows: int, n_columns: int, height: int) -> go.Figure:
    """Add a legend for each panel of the first row of every model, or of every row, between the
    panel and its title; ``height`` is that of a row of panels without legends.

    The figure's first annotations are the panels' titles, row by row.
    """
    entries = [_entries(figure, panel) for panel in range(n_rows * n_columns)]
    titles = figure.layout.annotations[: n_rows * n_columns]
    heading = _TITLE + _LINE * max(each.text.count("<br>") for each in titles)
    rooms = [
        heading + _LINE * max(map(len, entries[row * n_columns : (row + 1) * n_columns]))
        for row in range(n_rows)
    ]
    below, bottom = 46, 56
    inner = sum(rooms[1:]) + n_rows * height + (n_rows - 1) * below
    top_of = inner
    for row, room in enumerate(rooms):
        for column in range(n_columns):
            panel = row * n_columns + column
            suffix = "" if panel == 0 else str(panel + 1)
            figure.layout[f"yaxis{suffix}"].domain = [(top_of - height) / inner, top_of / inner]
            place = {"x": figure.layout[f"xaxis{suffix}"].domain[0], "y": top_of / inner}
            figure.layout.annotations[panel].update(
                y=place["y"], yshift=room - heading, font_size=13
            )
            if not entries[panel]:
                continue
            for trace in figure.select_traces(selector={"yaxis": f"y{suffix}"}):
                trace.legend = f"legend{suffix}"
            figure.layout[f"legend{suffix}"] = {
                **place,
                "xanchor": "left",
                "yanchor": "bottom",
                "bgcolor": "rgba(0,0,0,0)",
                "font": {"size": 11},
                "tracegroupgap": 0,
            }
        top_of -= height + below + (rooms[row + 1] if row + 1 < n_rows else 0)
    return figure.update_layout(
        template="plotly_white",
        height=inner + rooms[0] + bottom,
        margin={"l": 64, "r": 20, "t": rooms[0], "b": bottom},
        hovermode="closest",
    )


def _entries(figure: go.Figure, panel: int) -> list[str]:
    """What the legend of a panel names."""
    axis = "y" if panel == 0 else f"y{panel + 1}"
    found = figure.select_traces(selector={"yaxis": axis})
    return [each.name for each in found if each.showlegend is not False]
