"""Correlations of a map's neurons, before and after ordering."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots
from torch import Tensor

from projector.errors import UserError
from projector.figures.brackets import Bracket, brackets_of, named_brackets
from projector.figures.words import TEMPLATE, heading, names_of, origin
from projector.naming.names import Names
from projector.naming.poles import SavedPole
from projector.projection.projection import Projection

MOST_CELLS = 1000
# Of a pole's name beside the picture: its signs and their width in pixels, the room for the scale
# of colours, and rows, as a share of all, between two names.
_MOST_SIGNS, _SIGN_WIDTH, _AROUND_NAMES, _LEAST_APART = 24, 6, 100, 0.025
_ORDER_TITLES = {
    "leaf": "ordered by the tree of average linkage",
    "linear": "in linear arrangement",
    "spectral": "in spectral order",
    "index": "in index order",
}


def heatmap_figure(
    projection: Projection,
    layer: int,
    site: str,
    order: str = "leaf",
    layout: str | None = None,
    names: Names | None = None,
    poles: Sequence[SavedPole] = (),
) -> go.Figure:
    """Correlations in index order and ordered, side by side on one colour scale.

    Above 1,000 neurons, each cell is the mean over a square of pairs, and the title says so.
    Brackets to the right of the ordered picture are poles with neurons that are contiguous in its
    order.

    Args:
        order: one of :data:`projector.projection.projection.ORDERS`.
        layout: name of the layout of the neurons; if it is linear, ``linear`` is its own order.
            None for the first.
        names: names given by the user.
        poles: poles of any maps, from :func:`projector.naming.poles.saved_poles`; those of this map
            that are searched are drawn.

    Raises:
        UserError: if the map, order or layout doesn't exist, the map's correlations weren't kept,
            or fewer than two of its neurons are defined.
    """
    correlation = projection.correlation(layer, site)
    defined = projection.positions(layer, site, layout).isfinite().all(dim=1).nonzero()[:, 0]
    orders = [defined, projection.order(layer, site, order, layout)]
    n = defined.numel()
    if n < 2:
        raise UserError(f"layer {layer} {site} has {n} defined neurons: too few for a heatmap")
    n_per_cell = math.ceil(n / MOST_CELLS)
    cells = [_cells(correlation[neurons][:, neurons], n_per_cell) for neurons in orders]
    off_diagonal = np.abs(cells[0][~np.eye(len(cells[0]), dtype=bool)])
    # Most correlations are small: a scale to ±1 would show them all alike.
    limit = max(0.05, float(np.quantile(off_diagonal, 0.995)))
    figure = make_subplots(
        cols=2,
        subplot_titles=["in index order", _ORDER_TITLES[order]],
        horizontal_spacing=0.04,
    )
    called = names_of(projection, layer, site, names)
    for column, (neurons, values) in enumerate(zip(orders, cells, strict=True), 1):
        labels = _cell_labels(neurons.tolist(), n_per_cell, called)
        figure.add_trace(
            go.Heatmap(
                z=values.astype(np.float32),
                x=labels,
                y=labels,
                coloraxis="coloraxis",
                hovertemplate="%{x} and %{y}: ρ = %{z:.2f}<extra></extra>",
            ),
            row=1,
            col=column,
        )
    note = f"colours end at ρ = ±{limit:.2f}"
    if n_per_cell > 1:
        note += f"; each cell is the mean over {n_per_cell} × {n_per_cell} pairs"
    _lay_out(
        figure,
        f"Correlation of {n:,} neurons · layer {layer} {html.escape(site)} · {origin(projection)}"
        f"<br><sup>{note}</sup>",
        limit,
    )
    own = [each for each in poles if (each.layer, each.site) == (layer, site) and each.is_searched]
    if own and order != "index":
        _draw_brackets(figure, _brackets(own, orders[1], called, n_per_cell, names), len(cells[1]))
    return figure


def _lay_out(figure: go.Figure, title: str, limit: float) -> None:
    """Square pictures without ticks, on one colour scale that ends at ±``limit``; ``title`` is
    HTML."""
    figure.update_xaxes(showticklabels=False, constrain="domain")
    figure.update_yaxes(showticklabels=False, autorange="reversed", constrain="domain")
    figure.update_yaxes(scaleanchor="x", row=1, col=1)
    figure.update_yaxes(scaleanchor="x2", row=1, col=2)
    figure.update_layout(
        template=TEMPLATE,
        title=heading(title),
        coloraxis={
            "colorscale": "RdBu_r",
            "cmin": -limit,
            "cmax": limit,
            "colorbar": {"title": "ρ", "thickness": 14},
        },
        margin={"l": 10, "r": 10, "t": 110, "b": 10},
        height=720,
    )


def _brackets(
    poles: Sequence[SavedPole],
    order: Tensor,
    called: Sequence[str],
    n_per_cell: int,
    names: Names | None,
) -> tuple[Bracket, ...]:
    """Where poles stand in an order, distinct ones first where two overlap."""
    labels = np.full(len(called), -1, dtype=np.int64)
    texts = {}
    for pole in poles:
        labels[[j for j in pole.neurons if 0 <= j < len(called)]] = pole.number
        name = pole.label
        if names is not None:
            name = names.of_pole(pole.layer, pole.site, pole.file, pole.neurons) or name
        texts[pole.number] = f"{pole.number}: {name}" if name else f"pole {pole.number}"
    ranked = [pole.number for pole in sorted(poles, key=lambda each: not each.is_distinct)]
    listed = [texts.get(k, "") for k in range(max(texts) + 1)]
    return brackets_of(order.numpy(), labels, listed, ranked, n_per_cell)


def _draw_brackets(figure: go.Figure, brackets: Sequence[Bracket], n_rows: int) -> None:
    """At the right of the second picture, with the names that have room."""
    named = named_brackets(brackets, _LEAST_APART * n_rows)
    for each in brackets:
        low, high = each.first - 0.5, each.last + 0.5
        figure.add_shape(
            type="path",
            path=f"M 1.006 {low} L 1.016 {low} L 1.016 {high} L 1.006 {high}",
            xref="x2 domain",
            yref="y2",
            line={"color": "#56606b", "width": 2},
        )
        if each not in named:
            continue
        text = each.text if len(each.text) <= _MOST_SIGNS else f"{each.text[: _MOST_SIGNS - 1]}…"
        figure.add_annotation(
            x=1.022,
            y=(low + high) / 2,
            xref="x2 domain",
            yref="y2",
            xanchor="left",
            showarrow=False,
            text=html.escape(text, quote=False),
            hovertext=html.escape(each.text, quote=False),
            font={"size": 11},
        )
    if brackets:
        widest = max(min(_MOST_SIGNS, len(each.text)) for each in brackets)
        room = _AROUND_NAMES + _SIGN_WIDTH * widest
        figure.update_layout(
            margin_r=room,
            coloraxis_colorbar={"x": 1.0, "xref": "container", "xanchor": "right"},
        )


def _cells(correlation: Tensor, n_per_cell: int) -> np.ndarray:
    values = correlation.float().numpy()
    if n_per_cell == 1:
        return values
    # A neuron's correlation with itself, 1, is not that of a pair: averaged in, it would draw a
    # diagonal.
    values = values.copy()
    np.fill_diagonal(values, 0)
    edges = np.arange(0, len(values), n_per_cell)
    counts = np.diff([*edges, len(values)])
    n_pairs = np.outer(counts, counts) - np.diag(counts)
    sums = np.add.reduceat(np.add.reduceat(values, edges, axis=0), edges, axis=1)
    return np.where(n_pairs > 0, sums / np.maximum(n_pairs, 1), np.nan)


def _cell_labels(order: list[int], n_per_cell: int, names: Sequence[str]) -> list[str]:
    if n_per_cell == 1:
        return [f"N{i} {names[i]}".rstrip() for i in order]
    return [
        f"N{order[i]} … N{order[min(i + n_per_cell, len(order)) - 1]} (place {i:,})"
        for i in range(0, len(order), n_per_cell)
    ]
