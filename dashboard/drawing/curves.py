"""Curves over layers: how organised the maps of a projection are, beside chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from projector.sites import MapKey, site_words
from projector.statistics.organisation import PARTNER_RHO, Organisation

# A site's line, in the order of sites: three of the map's colours that are far apart.
_LINES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
TITLES = (
    "Effective dimension, share of neurons",
    "Variance along the leading axis",
    f"Neurons with a partner, |ρ| ≥ {PARTNER_RHO:g}",
)


def organisation_figure(found: Mapping[MapKey, Organisation], sites: Sequence[str]) -> go.Figure:
    """One panel for each figure, one line for each site; what chance gives is dotted."""
    figure = make_subplots(cols=3, rows=1, subplot_titles=TITLES, horizontal_spacing=0.06)
    for number, site in enumerate(sites):
        layers = [layer for layer, s in found if s == site]
        if not layers:
            continue
        color = _LINES[number % len(_LINES)]
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
    figure.update_xaxes(title={"text": "layer", "standoff": 4}, dtick=_step(found))
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


def _step(found: Mapping[MapKey, Organisation]) -> int:
    """Of the ticks on the axis of layers, which are whole numbers."""
    layers = [layer for layer, _ in found] or [0]
    return max(1, (max(layers) - min(layers)) // 10)
