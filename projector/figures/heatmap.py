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
from projector.figures.words import TEMPLATE, heading, names_of, origin
from projector.naming.names import Names
from projector.projection.projection import Projection

MOST_CELLS = 1000
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
) -> go.Figure:
    """Correlations in index order and ordered, side by side on one colour scale.

    Above 1,000 neurons each cell is the mean over a square of pairs, which the title says.

    Args:
        order: one of :data:`projector.projection.projection.ORDERS`.
        layout: name of the layout whose neurons are shown, and whose own order ``linear`` is where
            it is a linear one; None is the first.
        names: those that the user gave.

    Raises:
        UserError: if the projection has no such map, order or layout, kept no correlations of the
            map, or fewer than two of its neurons are defined.
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
    figure.update_xaxes(showticklabels=False, constrain="domain")
    figure.update_yaxes(showticklabels=False, autorange="reversed", constrain="domain")
    figure.update_yaxes(scaleanchor="x", row=1, col=1)
    figure.update_yaxes(scaleanchor="x2", row=1, col=2)
    figure.update_layout(
        template=TEMPLATE,
        title=heading(
            f"Correlation of {n:,} neurons · layer {layer} {html.escape(site)} · "
            f"{origin(projection)}<br><sup>{note}</sup>"
        ),
        coloraxis={
            "colorscale": "RdBu_r",
            "cmin": -limit,
            "cmax": limit,
            "colorbar": {"title": "ρ", "thickness": 14},
        },
        margin={"l": 10, "r": 10, "t": 110, "b": 10},
        height=720,
    )
    return figure


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
