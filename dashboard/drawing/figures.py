"""Figures of correlations, of groups and of activations."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from dashboard.drawing import palette
from dashboard.drawing.cells import Cells
from dashboard.drawing.text import number
from projector.figures.brackets import Bracket, named_brackets
from projector.sites import MapKey, site_words
from projector.statistics.organisation import PARTNER_RHO, Organisation
from pruning.poles.tree import CondensedTree

# A site's line, in the order of sites: three of the map's colours that are far apart.
_SITE_COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
_ORGANISATION_TITLES = (
    "Effective dimension, share of neurons",
    "Variance along the leading axis",
    f"Neurons with a partner, |ρ| ≥ {PARTNER_RHO:g}",
)
# Blue below zero, orange above, as on maps; zero has the page's colour.
_LIGHT_SCALE = ("#0b4a8f", "#3f8fd6", "#a9cdea", "#fafafa", "#f0c7a0", "#dd7a2c", "#963c05")
_DARK_SCALE = ("#9bd0ff", "#3f8fd6", "#1c4a75", "#17191d", "#6e3a12", "#dd7a2c", "#ffc999")
# Pixels of a sign of a group's name, and rows, as a share of all, between two names.
_SIGN_WIDTH, _LEAST_APART = 6, 0.035
# Above a picture, at its left.
_COLOR_BAR = {
    "orientation": "h",
    "thickness": 12,
    "len": 260,
    "lenmode": "pixels",
    "x": 0.0,
    "xanchor": "left",
    "y": 1.0,
    "yanchor": "bottom",
}
# Of an axis of tokens, and of one token's name there.
_MOST_TICKS, _MOST_TICK = 28, 10


def heatmap_figure(
    cells: Cells,
    limit: float,
    name: str,
    marked: Sequence[int] = (),
    *,
    names: Sequence[str] = (),
    brackets: Sequence[Bracket] = (),
    group_colors: Sequence[int] = (),
    n_signs: int = 0,
    dark: bool = False,
) -> go.Figure:
    """Heatmap of ρ in an order, in colours from −``limit`` to ``limit``, with ``marked`` neurons.

    Args:
        name: name of the map, such as ``L3``.
        names: what each neuron fires on, for the hover text; empty if unknown.
        brackets: groups to draw at the right, with the full name under the pointer.
        group_colors: colour of each group by its number, as for :func:`tree_figure`.
        n_signs: maximum characters of a group's name next to its bracket; 0 for the number alone.
    """
    n_signs = min(n_signs, max((len(each.text) for each in brackets), default=0))
    # Plotly interprets HTML in every text.
    rows = [html.escape(text, quote=False) for text in cells.called(names)]
    colors = _DARK_SCALE if dark else _LIGHT_SCALE
    scale = [[k / (len(colors) - 1), color] for k, color in enumerate(colors)]
    figure = go.Figure(
        go.Heatmap(
            z=cells.values,
            x=rows,
            y=rows,
            zmin=-limit,
            zmax=limit,
            colorscale=scale,
            colorbar=_color_bar(limit),
            hovertemplate=f"{name} %{{y}}<br>{name} %{{x}}<br>ρ = %{{z:.3f}}<extra></extra>",
        )
    )
    places = cells.rows_of(marked)
    if places:
        at = [rows[k] for k in places]
        figure.add_trace(
            go.Scatter(
                x=at,
                y=at,
                mode="markers",
                marker={"symbol": "square-open", "size": 9, "color": "#d0434b", "line_width": 2},
                hoverinfo="skip",
                showlegend=False,
            )
        )
    ticks = np.unique(np.linspace(0, len(rows) - 1, 7).astype(int))
    axis = {
        "tickmode": "array",
        "type": "category",
        "tickvals": [rows[t] for t in ticks],
        "ticktext": [cells.labels[t].split(",")[0] for t in ticks],
        "constrain": "domain",
        "title": "neuron",
        # Marks would take space, and make the picture narrower while a box is drawn.
        "range": [-0.5, len(rows) - 0.5],
    }
    figure.update_layout(
        height=560,
        margin={"l": 10, "r": 30 + _SIGN_WIDTH * n_signs, "t": 90, "b": 10},
        xaxis={**axis, "constraintoward": "left"},
        yaxis={
            **axis,
            "range": axis["range"][::-1],
            "scaleanchor": "x",
            "constraintoward": "top",
        },
        dragmode="select",
        # Zoom stays while a click changes what is marked.
        uirevision=f"{name} {len(rows)}",
    )
    table = palette.groups(dark=dark)
    shades = [palette.hex_of(table, _color_of(each.group, group_colors)) for each in brackets]
    _draw_brackets(figure, brackets, shades, len(rows), n_signs)
    return figure


def _color_bar(limit: float) -> dict[str, Any]:
    """Above the picture; numbers with a minus, not a hyphen."""
    values = [-limit, -limit / 2, 0.0, limit / 2, limit]
    return _COLOR_BAR | {
        "tickvals": values,
        "ticktext": [number(value) if value else "ρ = 0" for value in values],
    }


def _draw_brackets(
    figure: go.Figure,
    brackets: Sequence[Bracket],
    colors: Sequence[str],
    n_rows: int,
    n_signs: int,
) -> None:
    """Groups at the right of the picture, with the names that have room."""
    named = named_brackets(brackets, _LEAST_APART * n_rows)
    for each, color in zip(brackets, colors, strict=True):
        low, high = each.first - 0.5, each.last + 0.5
        figure.add_shape(
            type="path",
            path=f"M 1.008 {low} L 1.02 {low} L 1.02 {high} L 1.008 {high}",
            xref="x domain",
            yref="y",
            line={"color": color, "width": 2.5},
        )
        if each not in named:
            continue
        text = each.text if n_signs else str(each.group)
        if len(text) > n_signs > 0:
            text = f"{text[: n_signs - 1]}…"
        figure.add_annotation(
            x=1.03,
            y=(low + high) / 2,
            xref="x domain",
            yref="y",
            xanchor="left",
            showarrow=False,
            text=html.escape(text, quote=False),
            hovertext=html.escape(each.text, quote=False),
            font={"size": 12},
            align="left",
        )


def pattern_figure(
    pattern: NDArray[np.floating], tokens: Sequence[str], selected: int, *, dark: bool = False
) -> go.Figure:
    """How much each token (rows) attends to each other token (columns).

    Args:
        pattern: (T, T), each row a distribution.
        tokens: (T,) texts.
        selected: the row with a frame.
    """
    names = [f"{k + 1} {html.escape(text, quote=False)}" for k, text in enumerate(tokens)]
    colors = (_DARK_SCALE if dark else _LIGHT_SCALE)[3:]
    # Most weights are small: what is a tenth of all already stands out.
    scale = [[at, color] for at, color in zip((0.0, 0.12, 0.5, 1.0), colors, strict=True)]
    figure = go.Figure(
        go.Heatmap(
            z=pattern,
            x=names,
            y=names,
            zmin=0,
            zmax=1,
            colorscale=scale,
            colorbar=_COLOR_BAR | {"tickvals": [0, 0.5, 1], "ticktext": ["0 %", "50 %", "100 %"]},
            hovertemplate="%{y}<br>attends by %{z:.1%}<br>to %{x}<extra></extra>",
        )
    )
    n = len(names)

    def axis(most_ticks: int) -> dict[str, Any]:
        step = max(1, -(-n // most_ticks))
        return {
            "type": "category",
            "tickmode": "array",
            "tickvals": names[::step],
            "ticktext": [html.escape(_tick(text), quote=False) for text in tokens[::step]],
            "range": [-0.5, n - 0.5],
            "showgrid": False,
            "tickfont": {"size": 11},
        }

    figure.add_shape(
        type="rect",
        x0=-0.5,
        x1=n - 0.5,
        y0=selected - 0.5,
        y1=selected + 0.5,
        line={"color": "#d0434b", "width": 1.5},
    )
    figure.update_layout(
        height=460,
        margin={"l": 10, "r": 10, "t": 60, "b": 10},
        xaxis=axis(_MOST_TICKS // 2)
        | {"title": {"text": "attends to", "standoff": 4}, "tickangle": -90},
        yaxis=axis(_MOST_TICKS) | {"title": "token", "range": [n - 0.5, -0.5]},
        dragmode="zoom",
        uirevision=f"pattern {n}",
    )
    return figure


def _tick(text: str) -> str:
    return text if len(text) <= _MOST_TICK else f"{text[: _MOST_TICK - 1]}…"


def tree_figure(
    tree: CondensedTree, colors: Sequence[int] = (), *, dark: bool = False
) -> go.Figure:
    """The condensed tree, drawn as bars of the neurons left at each density.

    Args:
        colors: colour of each pole by its number, as on the map: an index of
            :func:`dashboard.drawing.palette.groups`.
    """
    table = palette.groups(dark=dark)
    figure = go.Figure()
    for branch in tree.branches:
        color = (
            palette.hex_of(table, _color_of(branch.pole, colors))
            if branch.pole is not None
            else ("#4a4f57" if dark else "#c6cacf")
        )
        figure.add_trace(
            go.Scatter(
                x=branch.outline_x,
                y=branch.outline_y,
                fill="toself",
                mode="lines",
                line={"width": 0.5, "color": color},
                fillcolor=color,
                name="" if branch.pole is None else f"pole {branch.pole}",
                hoverinfo="name",
                showlegend=False,
            )
        )
    figure.update_layout(
        title={"text": "Condensed tree", "x": 0.02, "font": {"size": 15}},
        height=360,
        margin={"l": 10, "r": 10, "t": 40, "b": 10},
        xaxis={"title": "neurons", "showticklabels": False, "showgrid": False, "zeroline": False},
        yaxis={"title": "density λ (1 / distance)", "range": _density_range(tree)},
    )
    return figure


def _color_of(pole: int, colors: Sequence[int]) -> int:
    """The index of a pole's colour: as given, or by its number."""
    return colors[pole] if pole < len(colors) else int(palette.group_index(np.array([pole]))[0])


def _density_range(tree: CondensedTree) -> list[float] | None:
    """From a little before the first split on, or from 0, downwards: a density is never below."""
    last = max((max(branch.outline_y) for branch in tree.branches), default=0.0)
    if len(tree.branches) < 2:
        return [last, 0.0] if last > 0 else None
    first = min(min(branch.outline_y) for branch in tree.branches[1:])
    return [last, max(0.0, first - 0.3 * (last - first))]


def histogram_figure(counts: NDArray[np.integer], edges: NDArray[np.floating]) -> go.Figure:
    """Histogram of activations: (B,) counts between (B + 1,) edges."""
    middles = (edges[:-1] + edges[1:]) / 2
    figure = go.Figure(
        go.Bar(
            x=middles,
            y=counts,
            width=np.diff(edges),
            hovertemplate="activation %{x:.3g}<br>%{y:,} tokens<extra></extra>",
        )
    )
    figure.update_layout(
        height=240,
        margin={"l": 10, "r": 10, "t": 10, "b": 10},
        xaxis={"title": "activation"},
        yaxis={"title": "tokens (logarithmic)", "type": "log"},
        bargap=0,
    )
    return figure


def organisation_figure(found: Mapping[MapKey, Organisation], sites: Sequence[str]) -> go.Figure:
    """One panel for each figure and one line for each site; dotted lines show chance."""
    figure = make_subplots(
        cols=3, rows=1, subplot_titles=_ORGANISATION_TITLES, horizontal_spacing=0.06
    )
    for place, site in enumerate(sites):
        layers = [layer for layer, s in found if s == site]
        if not layers:
            continue
        color = _SITE_COLORS[place % len(_SITE_COLORS)]
        for panel in range(3):
            values = [_shares(found[layer, site])[panel] for layer in layers]
            for is_chance in (True, False):
                figure.add_trace(
                    go.Scatter(
                        x=layers,
                        y=[pair[int(is_chance)] for pair in values],
                        mode="lines" if is_chance and len(layers) > 1 else "lines+markers",
                        line={
                            "color": color,
                            "dash": "dot" if is_chance else "solid",
                            "width": 1.3 if is_chance else 2,
                        },
                        marker={
                            "size": 5,
                            "symbol": "line-ew-open" if is_chance else "circle",
                        },
                        name=site_words(site),
                        legendgroup=site,
                        showlegend=panel == 0 and not is_chance,
                        hovertemplate=f"layer %{{x}}, {site_words(site)}"
                        + (" by chance" if is_chance else "")
                        + ": %{y:.1%}<extra></extra>",
                    ),
                    row=1,
                    col=panel + 1,
                )
    layers = [layer for layer, _ in found] or [0]
    figure.update_xaxes(
        title={"text": "layer", "standoff": 4},
        range=[min(layers) - 0.5, max(layers) + 0.5],
        dtick=_layer_step(max(layers) - min(layers)),
        tickangle=0,
    )
    figure.update_yaxes(tickformat=".3~%", rangemode="tozero")
    # Shares from below one percent to all: an even scale would hide the small ones.
    figure.update_yaxes(type="log", tickformat="~%", dtick=1, rangemode="normal", col=1)
    figure.update_annotations(font_size=13)
    figure.update_layout(
        height=270,
        margin={"l": 10, "r": 10, "t": 34, "b": 10},
        legend={"orientation": "h", "y": -0.28, "x": 0},
        hovermode="closest",
    )
    return figure


def _shares(each: Organisation) -> tuple[tuple[float, float], ...]:
    """Of each figure what was measured, and what chance gives, as shares of 1."""
    n = each.n_neurons
    return (
        (each.effective_dimension / n, each.effective_dimension_by_chance / n),
        (each.leading_share, each.leading_share_by_chance),
        (each.partnered_share, each.partnered_share_by_chance),
    )


def _layer_step(reach: int) -> int:
    """Of the ticks on the axis of layers: a round number that gives seven at most."""
    return next((step for step in (1, 2, 5, 10, 20) if reach <= 6 * step), 50)
