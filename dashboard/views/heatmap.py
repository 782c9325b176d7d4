"""Correlations before and after ordering, on one colour scale."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
import streamlit as st
from numpy.typing import NDArray

from dashboard import palette, session
from dashboard.frame import Scene, neuron_name
from dashboard.loading import correlation_at, order_at, poles_at
from projector.errors import UserError

TITLE, ICON, PATH = "Heatmap", ":material/grid_on:", "heatmap"
ORDERS = {
    "linear": "Linear projection",
    "leaf": "Tree of groups",
    "pole": "Pole",
    "spectral": "Spectral",
    "index": "Index",
}
_MOST_CELLS = 512
_LIMITS: list[str | float] = ["few exceed it", 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0]


def show(scene: Scene) -> None:
    """Draw the page."""
    st.title("Correlations")
    columns = st.columns([2, 2, 3], vertical_alignment="bottom")
    by = columns[0].selectbox("Order", list(ORDERS), format_func=ORDERS.__getitem__, key="order")
    limit = columns[1].select_slider(
        "Full colour at |ρ| =",
        _LIMITS,
        "few exceed it",
        key="heatmap limit",
        help="One scale for both. At first the |ρ| that one pair in a thousand exceeds.",
    )
    before = columns[2].toggle("As they come beside it", value=True, key="heatmap before")
    with session.problems():
        rho = correlation_at(scene.path, scene.layer, scene.site)
        ordered = _order(scene, by)
        most = usual_limit(rho) if isinstance(limit, str) else float(limit)
        shown = [("index", _order(scene, "index"))] if before and by != "index" else []
        shown.append((by, ordered))
        places = st.columns(len(shown))
        for place, (name, order) in zip(places, shown, strict=True):
            with place:
                _draw(scene, rho, order, name, most)
    st.caption(
        "Drag a box to choose neurons: they are marked on the map. Where there are more than "
        f"{_MOST_CELLS} neurons, a cell is the mean over some of them."
    )


def _order(scene: Scene, by: str) -> NDArray[np.int64]:
    if by != "pole":
        return order_at(scene.path, scene.layer, scene.site, by)
    poles = poles_at(scene.path, scene.layer, scene.site, session.pole_settings())
    # Inside a pole, and among those in none, as the tree of groups has them.
    leaf = order_at(scene.path, scene.layer, scene.site, "leaf")
    labels = poles.labels.numpy()[leaf]
    rank = np.where(labels < 0, len(poles.poles), labels)
    return leaf[np.argsort(rank, kind="stable")]


def _draw(
    scene: Scene, rho: NDArray[np.float32], order: NDArray[np.int64], name: str, limit: float
) -> None:
    if not len(order):
        raise UserError("no neuron of this layer varies, so that there is no correlation")
    figure = heatmap(
        rho, order, limit, neuron_name(scene.layer, scene.site), session.current().marked
    )
    figure.update_layout(title={"text": ORDERS[name], "x": 0.02, "font": {"size": 15}})
    event = st.plotly_chart(
        figure,
        key=f"heatmap {name} {scene.layer} {scene.site}",
        on_select="rerun",
        selection_mode=("box", "points"),
    )
    chosen = _chosen(event, order)
    if chosen:
        first = ", ".join(f"N{j}" for j in chosen[:12])
        st.caption(f"{len(chosen):,} chosen: {first}{' …' if len(chosen) > 12 else ''}")
        if chosen != list(session.current().marked):
            session.change(marked=tuple(chosen), neuron=chosen[0])


def _chosen(event: object, order: NDArray[np.int64]) -> list[int]:
    selection = getattr(event, "selection", None) or {}
    boxes = selection.get("box") or []
    n_per_cell = -(-len(order) // _MOST_CELLS)
    found: set[int] = set()
    for box in boxes:
        for axis in ("x", "y"):
            ends = [float(v) for v in box.get(axis) or ()]
            if len(ends) == 2:
                low, high = sorted(ends)
                first = max(0, int(np.floor(low + 0.5)) * n_per_cell)
                last = min(len(order), (int(np.floor(high + 0.5)) + 1) * n_per_cell)
                found |= {int(j) for j in order[first:last]}
    return sorted(found)


def usual_limit(rho: NDArray[np.float32]) -> float:
    """The |ρ| that one pair in a thousand exceeds, of an evenly drawn part of a large matrix."""
    step = max(1, len(rho) // 2000)
    part = rho[::step, ::step]
    upper = np.abs(part[np.triu_indices(len(part), 1)])
    finite = upper[np.isfinite(upper)]
    return float(np.quantile(finite, 0.999)) if finite.size else 1.0


def heatmap(
    rho: NDArray[np.float32],
    order: NDArray[np.int64],
    limit: float,
    name: str,
    marked: Sequence[int] = (),
) -> go.Figure:
    """ρ of neurons in an order; blocks of several where there are many; ``marked`` ones told."""
    n = len(order)
    n_per_cell = -(-n // _MOST_CELLS)
    shown = rho[order][:, order]
    if n_per_cell > 1:
        starts = np.arange(0, n, n_per_cell)
        counts = np.diff(np.append(starts, n))
        sums = np.add.reduceat(np.add.reduceat(shown.astype(np.float64), starts, 0), starts, 1)
        shown = (sums / np.outer(counts, counts)).astype(np.float32)
        labels = [f"N{order[s]} and {c - 1} more" for s, c in zip(starts, counts, strict=True)]
    else:
        labels = [f"N{j}" for j in order]
    table = palette.diverging()
    scale = [[k / 16, palette.hex_of(table, min(255, 16 * k))] for k in range(17)]
    figure = go.Figure(
        go.Heatmap(
            z=np.round(shown, 3),
            x=labels,
            y=labels,
            zmin=-limit,
            zmax=limit,
            colorscale=scale,
            colorbar={"title": "ρ", "thickness": 12},
            hovertemplate=f"{name}: %{{x}}, %{{y}}<br>ρ = %{{z:.3f}}<extra></extra>",
        )
    )
    places = [k // n_per_cell for k in np.flatnonzero(np.isin(order, list(marked)))]
    if places:
        names = [labels[k] for k in dict.fromkeys(places)]
        figure.add_trace(
            go.Scatter(
                x=names,
                y=names,
                mode="markers",
                marker={"symbol": "square-open", "size": 9, "color": "#d0434b", "line_width": 2},
                hoverinfo="skip",
                showlegend=False,
            )
        )
    ticks = np.unique(np.linspace(0, len(labels) - 1, 7).astype(int))
    axis = {
        "tickmode": "array",
        "type": "category",
        "tickvals": [labels[t] for t in ticks],
        "ticktext": [labels[t].split(" and ")[0] for t in ticks],
        "constrain": "domain",
    }
    figure.update_layout(
        height=560,
        margin={"l": 10, "r": 10, "t": 40, "b": 10},
        xaxis=axis,
        yaxis={**axis, "autorange": "reversed", "scaleanchor": "x"},
        dragmode="select",
    )
    return figure
