"""Correlations before and after ordering, on one colour scale."""

from __future__ import annotations

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from dashboard.drawing.cells import MOST_CELLS, Cells
from dashboard.drawing.figures import heatmap_figure
from dashboard.drawing.text import neuron_name
from dashboard.frame.chosen import show_marked
from dashboard.frame.exports import offer_figure
from dashboard.state import session
from dashboard.state.loading import cells_at, order_at, poles_at
from dashboard.state.scene import Scene
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
    name = (
        by
        if by != "pole"
        else f"pole {session.pole_settings(scene.projection, scene.layer, scene.site).key}"
    )
    name += f" {scene.layout}"
    order = _order(scene, by)
    if not len(order):
        raise UserError(
            "no neuron of this layer varies, so nothing correlates: choose another layer"
        )
    return cells_at(scene.path, scene.layer, scene.site, name, order)


def _order(scene: Scene, by: str) -> NDArray[np.int64]:
    if by != "pole":
        return order_at(scene.path, scene.layer, scene.site, by, scene.layout)
    poles = poles_at(
        scene.path,
        scene.layer,
        scene.site,
        scene.layout,
        session.pole_settings(scene.projection, scene.layer, scene.site),
    )
    # Inside a pole, and among those in none, as the tree of groups has them.
    leaf = order_at(scene.path, scene.layer, scene.site, "leaf", scene.layout)
    labels = poles.labels.numpy()[leaf]
    rank = np.where(labels < 0, len(poles.poles), labels)
    return leaf[np.argsort(rank, kind="stable")]


def _draw(scene: Scene, cells: Cells, name: str, limit: float, *, alone: bool) -> None:
    figure = heatmap_figure(
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
