"""What figures of two sets share: colours that colour-blind readers can distinguish, on white and
on black; bands, lines and axes of layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from projector.figures.contrast.series import Place

# Of Okabe and Ito (2008), but for the grey: each has a contrast of 3 to white and to black.
POSITIVE, NEGATIVE, THIRD, FOURTH = "#0a7ac2", "#d55e00", "#0a8f6b", "#b8639a"
NULL, OTHER_NULL = "#7d8590", "#a3742a"
_MOST_TICKS = 12
_Values = Sequence[float | None]


def clear(color: str, opacity: float = 0.2) -> str:
    """A colour that lets through what is behind it."""
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
    """A filled band between two curves; nothing where either is not known."""
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
    customdata: Sequence[str] | None = None,
    legend: bool = True,
    **more: Any,
) -> None:
    """A curve over places of the stream: the embedding apart as a diamond, the middle of a block
    as an open circle, all else as a filled one; a band around it where there is one."""
    is_null = dash != "solid"
    tips = list(customdata or ("" for _ in places))
    for is_embedding in (True, False):
        chosen = [k for k, place in enumerate(places) if place.is_embedding == is_embedding]
        if not chosen or all(values[k] is None for k in chosen):
            continue
        if band is not None:
            low, high = ([ends[k] for k in chosen] for ends in band)
            add_band(figure, [places[k].depth for k in chosen], low, high, color, name, **more)
        symbols = ["circle-open" if places[k].stream == "resid_mid" else "circle" for k in chosen]
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
    """The axis of depth: block L reaches from L to L + 1."""
    n_blocks = 1 + max((place.layer for place in places), default=0)
    # The embedding's mark is as wide in a deep model.
    margin = max(0.35, n_blocks / 40)
    return {
        "range": [-margin, n_blocks + margin],
        "tickvals": list(range(0, n_blocks + 1, _step(n_blocks))),
        "zeroline": False,
    }


def layer_axis(n_layers: int) -> dict[str, Any]:
    """The axis of layers."""
    return {
        "title": {"text": "layer"},
        "range": [-0.6, n_layers - 0.4],
        "tickvals": list(range(0, n_layers, _step(n_layers))),
        "zeroline": False,
    }


def _step(n: int) -> int:
    return next(step for step in (1, 2, 5, 10, 20, 50, 100, n) if n <= _MOST_TICKS * step)


def lay_out(figure: go.Figure, height: int, *, top: int = 64, **more: Any) -> go.Figure:
    """Room, and the legend above all panels, which ``top`` pixels hold with their titles."""
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
