"""Correlations before and after ordering, on one colour scale."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
import streamlit as st
from numpy.typing import NDArray

from dashboard.drawing.cells import MOST_CELLS, Cells
from dashboard.frame.exports import offer_figure
from dashboard.frame.sidebar import Scene, neuron_name
from dashboard.state import session
from dashboard.state.loading import cells_at, order_at, poles_at
from dashboard.views.map import show_marked
from projector.errors import UserError
from projector.sites import site_words

TITLE, ICON, PATH = "Heatmap", ":material/grid_on:", "heatmap"
ORDERS = {
    "linear": "Linear projection",
    "leaf": "Tree of groups",
    "pole": "Pole",
    "spectral": "Spectral",
    "index": "Index",
}
# Blue for below zero, orange for above, as on maps; zero is the page: what is there stands out.
_LIGHT_SCALE = ("#0b4a8f", "#3f8fd6", "#a9cdea", "#fafafa", "#f0c7a0", "#dd7a2c", "#963c05")
_DARK_SCALE = ("#9bd0ff", "#3f8fd6", "#1c4a75", "#17191d", "#6e3a12", "#dd7a2c", "#ffc999")
_LIMITS: list[str | float] = ["auto", 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0]


def show(scene: Scene) -> None:
    """Draw the page."""
    site = site_words(scene.site)
    st.title(session.plain(f"Correlations in layer {scene.layer}: {site}"))
    columns = st.columns([2, 2, 3], vertical_alignment="bottom")
    by = columns[0].selectbox("Order", list(ORDERS), format_func=ORDERS.__getitem__, key="order")
    limit = columns[1].select_slider(
        "Full colour at |ρ| =",
        _LIMITS,
        "auto",
        key="heatmap limit",
        help="One scale for both. auto: the |ρ| that one pair in a thousand exceeds.",
    )
    before = columns[2].toggle("As they come beside it", value=True, key="heatmap before")
    with session.problems():
        shown = ["index", by] if before and by != "index" else [by]
        found = [_cells(scene, name) for name in shown]
        places = st.columns(len(shown))
        for place, name, (cells, usual) in zip(places, shown, found, strict=True):
            with place:
                most = usual if isinstance(limit, str) else float(limit)
                _draw(scene, cells, name, most, alone=len(shown) == 1)
        show_marked(scene)
    st.caption(
        "Drag a box to choose neurons: they are marked here, on the map and on a prompt; a double "
        f"click lets go of them. Where there are more than {MOST_CELLS} neurons, a cell is the "
        "mean over the pairs of some."
    )


def _cells(scene: Scene, by: str) -> tuple[Cells, float]:
    name = by if by != "pole" else f"pole {session.pole_settings().key}"
    order = _order(scene, by)
    if not len(order):
        raise UserError("no neuron of this layer varies, so that there is no correlation")
    return cells_at(scene.path, scene.layer, scene.site, name, order)


def _order(scene: Scene, by: str) -> NDArray[np.int64]:
    if by != "pole":
        return order_at(scene.path, scene.layer, scene.site, by)
    poles = poles_at(scene.path, scene.layer, scene.site, session.pole_settings())
    # Inside a pole, and among those in none, as the tree of groups has them.
    leaf = order_at(scene.path, scene.layer, scene.site, "leaf")
    labels = poles.labels.numpy()[leaf]
    rank = np.where(labels < 0, len(poles.poles), labels)
    return leaf[np.argsort(rank, kind="stable")]


def _draw(scene: Scene, cells: Cells, name: str, limit: float, *, alone: bool) -> None:
    figure = heatmap(
        cells,
        limit,
        neuron_name(scene.layer, scene.site),
        session.current().marked,
        dark=st.context.theme.type == "dark",
    )
    figure.update_layout(
        title={"text": ORDERS[name], "x": 0.02, "font": {"size": 15}}, height=720 if alone else 460
    )
    key = f"heatmap {name} {scene.layer} {scene.site}"

    def select() -> None:
        # Only the picture that a box was drawn on is asked: the other may hold an older one.
        chosen = cells.within(st.session_state[key]["selection"].get("box") or ())
        first = {"neuron": chosen[0]} if chosen else {}
        session.change(marked=tuple(chosen), pole=None, **first)

    st.plotly_chart(figure, key=key, on_select=select, selection_mode="box")
    offer_figure(figure, f"{scene.name.replace('/', '-')}-heatmap-{name}-layer-{scene.layer}")


def heatmap(
    cells: Cells,
    limit: float,
    name: str,
    marked: Sequence[int] = (),
    *,
    dark: bool = False,
) -> go.Figure:
    """ρ of neurons in an order, in colours from −``limit`` to ``limit``; ``marked`` ones told."""
    labels = cells.labels
    colors = _DARK_SCALE if dark else _LIGHT_SCALE
    scale = [[k / (len(colors) - 1), color] for k, color in enumerate(colors)]
    figure = go.Figure(
        go.Heatmap(
            z=cells.values,
            x=labels,
            y=labels,
            zmin=-limit,
            zmax=limit,
            colorscale=scale,
            colorbar={"title": "ρ", "thickness": 12, "len": 0.8},
            hovertemplate=f"{name}: %{{x}}, %{{y}}<br>ρ = %{{z:.3f}}<extra></extra>",
        )
    )
    names = cells.named(marked)
    if names:
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
        "ticktext": [labels[t].split(",")[0] for t in ticks],
        "constrain": "domain",
        "title": "neuron",
        # Marks would make room for themselves, and the picture narrower under a box being drawn.
        "range": [-0.5, len(labels) - 0.5],
    }
    figure.update_layout(
        height=560,
        margin={"l": 10, "r": 10, "t": 40, "b": 10},
        xaxis=axis,
        yaxis={**axis, "range": axis["range"][::-1], "scaleanchor": "x"},
        dragmode="select",
    )
    return figure
