"""A projection becomes Plotly figures, and figures become self-contained HTML."""

from __future__ import annotations

import html
import math
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots
from torch import Tensor

from projector.errors import UserError
from projector.projection.facts import MapFigures
from projector.projection.faithfulness import FIGURES, in_words, told
from projector.projection.projection import Projection
from projector.storage.places import disk_errors

MOST_CELLS = 1000
_TEMPLATE = "plotly_white"
_ORDER_TITLES = {
    "leaf": "ordered by the tree of average linkage",
    "linear": "in linear arrangement",
    "spectral": "in spectral order",
    "index": "in index order",
}


def map_figure(projection: Projection, site: str, layers: list[int] | None = None) -> go.Figure:
    """The map of a site: 3-D, 2-D or 1-D, with a slider where there are several layers.

    Points are coloured by the standard deviation of their activation, where statistics were kept.
    Maps of more than three dimensions show their three widest principal axes, and say so.
    """
    chosen = [n for n, s in projection.maps if s == site and (layers is None or n in layers)]
    if not chosen:
        projection.positions((layers or projection.layers)[0], site)  # raises, naming what is wrong
    traces = [_map_trace(projection, layer, site) for layer in chosen]
    figure = go.Figure(traces)
    for i, trace in enumerate(figure.data):
        trace.visible = i == 0
    titles = [map_title(projection, layer, site) for layer in chosen]
    figure.update_layout(
        template=_TEMPLATE,
        title={"text": titles[0], "x": 0.01, "y": 0.97, "yanchor": "top", "font": {"size": 15}},
        margin={"l": 10, "r": 10, "t": 110, "b": 10},
        height=820,
        showlegend=False,
    )
    if projection.dim >= 3:
        axis = {"title": "", "showticklabels": True, "nticks": 5}
        figure.update_layout(
            scene={
                "aspectmode": "data",
                "xaxis": axis,
                "yaxis": axis,
                "zaxis": axis,
                "camera": {"eye": {"x": 1.05, "y": 1.05, "z": 0.75}},
            }
        )
    elif projection.dim == 2:
        figure.update_yaxes(scaleanchor="x")
    else:
        figure.update_layout(
            xaxis_title="position", yaxis_title="standard deviation of the activation"
        )
    if len(chosen) > 1:
        steps = [
            {
                "label": str(layer),
                "method": "update",
                "args": [
                    {"visible": [j == i for j in range(len(chosen))]},
                    {"title.text": titles[i]},
                ],
            }
            for i, layer in enumerate(chosen)
        ]
        figure.update_layout(
            sliders=[{"steps": steps, "currentvalue": {"prefix": "layer "}, "pad": {"t": 20}}],
            margin_b=90,
        )
    return figure


def heatmap_figure(projection: Projection, layer: int, site: str, order: str = "leaf") -> go.Figure:
    """Correlations in index order and ordered, side by side on one colour scale.

    Above 1,000 neurons each cell is the mean over a square of pairs, which the title says.
    """
    correlation = projection.correlation(layer, site)
    defined = projection.positions(layer, site).isfinite().all(dim=1).nonzero()[:, 0]
    orders = [defined, projection.order(layer, site, order)]
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
    for column, (neurons, values) in enumerate(zip(orders, cells, strict=True), 1):
        labels = _cell_labels(neurons.tolist(), n_per_cell)
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
        template=_TEMPLATE,
        title={
            "text": f"Correlation of {n:,} neurons · layer {layer} {html.escape(site)} · "
            f"{_origin(projection)}<br><sup>{note}</sup>",
            "x": 0.01,
            "font": {"size": 15},
        },
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


def stress_figure(projection: Projection) -> go.Figure:
    """Strips over layers, a row a site, for each figure that has one: stress, neighbours kept.

    A figure that is null is left blank, its reason on hover.
    """
    sites, layers = projection.sites, projection.layers
    present = set(projection.maps)
    strips = [each for each in FIGURES.values() if each.strip]
    better = {"low": "; lower is better", "high": "; higher is better"}
    figure = make_subplots(
        rows=len(strips),
        subplot_titles=[each.strip + better.get(each.better, "") for each in strips],
        vertical_spacing=0.5 / len(strips),
    )
    for row, strip in enumerate(strips, 1):
        values: list[list[float | None]] = []
        texts: list[list[str]] = []
        hovers: list[list[str]] = []
        for site in sites:
            figures = [
                projection.figures(layer, site) if (layer, site) in present else None
                for layer in layers
            ]
            found = [None if f is None else strip.number(f) for f in figures]
            shown = ["–" if v is None else strip.pattern.format(v) for v in found]
            values.append(found)
            texts.append(shown)
            hovers.append(
                [
                    "not in this projection"
                    if f is None
                    else html.escape(strip.reason(f) if v is None else text)
                    for f, v, text in zip(figures, found, shown, strict=True)
                ]
            )
        figure.add_trace(
            go.Heatmap(
                z=values,
                x=[f"layer {layer}" for layer in layers],
                y=sites,
                text=texts,
                texttemplate="%{text}",
                customdata=hovers,
                hovertemplate="%{y}, %{x}: %{customdata}<extra></extra>",
                colorscale="Viridis_r" if strip.better == "low" else "Viridis",
                showscale=False,
                xgap=2,
                ygap=2,
            ),
            row=row,
            col=1,
        )
    figure.update_yaxes(autorange="reversed")
    figure.update_layout(
        template=_TEMPLATE,
        title={
            "text": f"How far the maps can be trusted · {_origin(projection)}",
            "x": 0.01,
            "font": {"size": 15},
        },
        margin={"l": 10, "r": 10, "t": 100, "b": 30},
        height=(120 + 45 * max(2, len(sites))) * len(strips),
    )
    return figure


def write_figure(figure: go.Figure, path: Path) -> None:
    """Write HTML that needs no network; replaced in one step."""
    text = figure.to_html(include_plotlyjs=True, full_html=True)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        try:
            partial.write_text(text, encoding="utf-8")
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def write_pictures(projection: Projection, folder: Path) -> list[Path]:
    """A map of every site, the trust strips, and the heatmap of one layer of the first site."""
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


def trust_text(figures: MapFigures) -> str:
    """How far a map can be trusted, in words."""
    parts = [in_words(each.sentence, figures) for each in told()]
    parts = [part for part in parts if part]
    if figures.sample is not None:
        parts.append(figures.sample.words())
    if not parts:
        reason = next(iter(figures.reasons.values()), "nothing was measured")
        parts.append(f"how far to trust it is unknown: {reason}")
    return " · ".join(parts)


def map_title(projection: Projection, layer: int, site: str) -> str:
    """A map's title: what it shows, where it is from, how far it can be trusted."""
    figures = projection.figures(layer, site)
    n_dead = len(figures.dead_neurons) + len(figures.nonfinite_neurons)
    shown = f"{figures.n_neurons - n_dead:,} neurons"
    if n_dead:
        shown += f" ({n_dead:,} more are dead or broken and have no position)"
    if projection.dim > 3:
        shown += f", the three widest axes of {projection.dim}"
    return (
        f"<b>Layer {layer} {html.escape(site)}</b> · {shown} · {_origin(projection)}"
        f"<br><sup>{html.escape(trust_text(figures))}</sup>"
    )


def _origin(projection: Projection) -> str:
    facts = projection.facts
    text = facts.model.id
    if facts.corpus is not None:
        text += f" over {facts.corpus.n_tokens:,} tokens of {facts.corpus.source}"
    return html.escape(text)


def _map_trace(projection: Projection, layer: int, site: str) -> go.Scatter3d | go.Scatter:
    positions = projection.positions(layer, site)
    defined = positions.isfinite().all(dim=1).nonzero()[:, 0]
    points = positions[defined].numpy()
    if points.shape[1] > 3:
        points = _principal_axes(points)
    names = [f"L{layer} N{i}" for i in defined.tolist()]
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


def _principal_axes(points: np.ndarray) -> np.ndarray:
    centred = points - points.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    return centred @ axes[:3].T


def _cells(correlation: Tensor, n_per_cell: int) -> np.ndarray:
    values = correlation.float().numpy()
    if n_per_cell == 1:
        return values
    # A neuron's correlation with itself, 1, is no pair: averaged in, it would draw a diagonal.
    values = values.copy()
    np.fill_diagonal(values, 0)
    edges = np.arange(0, len(values), n_per_cell)
    counts = np.diff([*edges, len(values)])
    n_pairs = np.outer(counts, counts) - np.diag(counts)
    sums = np.add.reduceat(np.add.reduceat(values, edges, axis=0), edges, axis=1)
    return np.where(n_pairs > 0, sums / np.maximum(n_pairs, 1), np.nan)


def _cell_labels(order: list[int], n_per_cell: int) -> list[str]:
    if n_per_cell == 1:
        return [f"N{i}" for i in order]
    return [
        f"N{order[i]} … N{order[min(i + n_per_cell, len(order)) - 1]} (place {i:,})"
        for i in range(0, len(order), n_per_cell)
    ]
