"""Correlations in an order that shows groups, on one colour scale; compare two neurons."""

from __future__ import annotations

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from dashboard.components.plot_clicks import hear_clicks
from dashboard.drawing.cells import MOST_CELLS, ORDERS, USUAL_ORDER, Cells
from dashboard.drawing.figures import heatmap_figure
from dashboard.drawing.legend import colors_of
from dashboard.drawing.text import neuron_name, number
from dashboard.frame.chosen import poles_shown, show_marked
from dashboard.frame.exports import offer_figure
from dashboard.state import session
from dashboard.state.loading import cells_at, correlation_at, half_rho_at, order_at, poles_at
from dashboard.state.naming import labels_at, pole_names, snippets_at
from dashboard.state.scene import Scene
from projector.errors import UserError
from projector.figures.brackets import Bracket, brackets_of
from projector.sites import site_words
from pruning.poles.poles import Poles

TITLE, ICON, PATH = "Heatmap", ":material/grid_on:", "heatmap"
_LIMITS: list[str | float] = ["auto", 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0]
_ORDER_HELP = (
    "How rows and columns are ordered.\n\n"
    "- Tree of groups: the leaves of a tree that joins the most alike neurons first (average "
    "linkage of 1 − ρ), its branches turned so that neurons that touch are most alike. Groups are "
    "blocks along the diagonal.\n"
    "- Linear projection: the linear arrangement, in which neurons that fire together are close "
    "to one another.\n"
    "- Pole: one pole after another, then the neurons in none.\n"
    "- Spectral: by the Fiedler vector of the graph whose weights are (1 + ρ)/2.\n"
    "- Unsorted: by the neurons' numbers."
)
_COMPARED = "compared neurons"
# Of a group's name at the side of the picture.
_N_SIGNS = 24
# Pixels of a picture: what its title, colours and axes take of its height more than of its width,
# and the most that it is high.
_AROUND, _MOST_HEIGHT = 80, 760


def show(scene: Scene) -> None:
    """Draw the page."""
    site = site_words(scene.site)
    st.title(session.plain(f"Correlations in layer {scene.layer}: {site}"))
    by, limit, unsorted_too = _choose()
    with session.problems():
        # Above the picture, where the result of a click is visible without scrolling.
        _show_pair(scene)
        poles = _poles(scene, by)
        shown = ["index", by] if unsorted_too and by != "index" else [by]
        found = [_cells(scene, name, poles) for name in shown]
        places = st.columns(len(shown))
        for place, name, (cells, usual) in zip(places, shown, found, strict=True):
            with place:
                most = usual if isinstance(limit, str) else float(limit)
                _draw(scene, cells, name, most, poles, alone=len(shown) == 1)
        show_marked(scene)
    st.caption(
        "Click a cell to compare its two neurons; double-click to reset the zoom. Drag a box to "
        "mark neurons here, on the map and on a prompt. "
        f"With more than {MOST_CELLS} neurons, a cell is the mean over the pairs of several."
    )


def _choose() -> tuple[str, str | float, bool]:
    """Choose the order, the end of the colours, and whether to show the unsorted picture too."""
    session.bind("order", session.current().order or USUAL_ORDER)
    columns = st.columns([2, 2, 2], vertical_alignment="bottom")

    def change() -> None:
        order = st.session_state["order"]
        session.change(order=None if order == USUAL_ORDER else order)

    by = columns[0].selectbox(
        "Order",
        list(ORDERS),
        format_func=ORDERS.__getitem__,
        key="order",
        on_change=change,
        help=_ORDER_HELP,
    )
    limit = columns[1].select_slider(
        "Colour range (±ρ)",
        _LIMITS,
        key="heatmap limit",
        on_change=session.keep("heatmap limit", "auto"),
        help="Where the colours end, on one scale for all pictures. auto: the |ρ| that one pair in "
        "a thousand exceeds.",
    )
    unsorted_too = columns[2].toggle(
        "Show unsorted too",
        key="heatmap unsorted",
        on_change=session.keep("heatmap unsorted", False),
        help="Shows the same neurons in the order of their numbers, next to the ordered picture.",
    )
    return by, limit, unsorted_too


def _poles(scene: Scene, by: str) -> Poles | None:
    """The poles that are marked at the side; found if they define the order."""
    if by == "pole":
        settings = session.pole_settings(scene.projection, scene.layer, scene.site)
        return poles_at(scene.path, scene.layer, scene.site, scene.layout, settings)
    return poles_shown(scene, scene.site)


def _cells(scene: Scene, by: str, poles: Poles | None) -> tuple[Cells, float]:
    settings = session.pole_settings(scene.projection, scene.layer, scene.site)
    name = by if by != "pole" else f"pole {settings.key}"
    name += f" {scene.layout}"
    order = _order(scene, by, poles)
    if not len(order):
        raise UserError(
            "no neuron of this layer varies, so nothing correlates: choose another layer"
        )
    return cells_at(scene.path, scene.layer, scene.site, name, order)


def _order(scene: Scene, by: str, poles: Poles | None) -> NDArray[np.int64]:
    if by != "pole" or poles is None:
        return order_at(scene.path, scene.layer, scene.site, by, scene.layout)
    # Inside a pole, and among neurons in none, in the order of the tree of groups.
    leaf = order_at(scene.path, scene.layer, scene.site, "leaf", scene.layout)
    labels = poles.labels.numpy()[leaf]
    rank = np.where(labels < 0, len(poles.poles), labels)
    return leaf[np.argsort(rank, kind="stable")]


def _brackets(scene: Scene, cells: Cells, poles: Poles) -> tuple[Bracket, ...]:
    names = [
        f"{k}: {name}" if name else f"pole {k}"
        for k, name in enumerate(pole_names(scene.path, poles, scene.layout))
    ]
    return brackets_of(
        cells.order, poles.labels.numpy(), names, poles.distinct_first, cells.n_per_cell
    )


def _draw(
    scene: Scene, cells: Cells, name: str, limit: float, poles: Poles | None, *, alone: bool
) -> None:
    is_sorted = name != "index"
    figure = heatmap_figure(
        cells,
        limit,
        neuron_name(scene.layer, scene.site),
        session.current().marked,
        names=labels_at(scene.path, scene.layer, scene.site),
        brackets=_brackets(scene, cells, poles) if poles is not None and is_sorted else (),
        group_colors=() if poles is None else colors_of(poles).tolist(),
        n_signs=_N_SIGNS if poles is not None and alone else 0,
        dark=st.context.theme.type == "dark",
    )
    figure.update_layout(title={"text": ORDERS[name], "x": 0.02, "font": {"size": 15}}, height=None)
    key = f"heatmap {name} {scene.layer} {scene.site}"

    def select() -> None:
        # Read only the picture that a box was drawn on: the other may hold an older box.
        chosen = cells.within(st.session_state[key]["selection"].get("box") or ())
        first = {"neuron": chosen[0]} if chosen else {}
        session.change(marked=tuple(chosen), pole=None, **first)

    def compare(row: int, column: int) -> None:
        rho = correlation_at(scene.path, scene.layer, scene.site)
        pair = cells.strongest_pair(rho, row, column)
        if pair is not None:
            st.session_state[_COMPARED] = (scene.path, scene.layer, scene.site, pair)

    inside = f"picture_{name}"
    st.html(_style(inside, figure.layout.margin.r))
    with st.container(key=inside):
        st.plotly_chart(figure, key=key, height="stretch", on_select=select, selection_mode="box")
    hear_clicks(inside, compare)
    offer_figure(figure, f"{scene.name.replace('/', '-')}-heatmap-{name}-layer-{scene.layer}")


def _style(inside: str, right: int) -> str:
    """As high as the square picture needs where it fills the width, but for the sides' room."""
    block = f".st-key-{inside}"
    height = f"clamp(280px, 100cqw - {right}px + {_AROUND}px, {_MOST_HEIGHT}px)"
    return (
        f"<style>{block} {{ container-type: inline-size; }} "
        f"{block} > :has([data-testid='stPlotlyChart']) {{ flex: none; height: {height}; }}</style>"
    )


def _show_pair(scene: Scene) -> None:
    """Compare the two neurons of the last clicked cell."""
    *where, pair = st.session_state.get(_COMPARED, (None, None))
    if tuple(where) != (scene.path, scene.layer, scene.site):
        return
    name = neuron_name(scene.layer, scene.site)
    labels = labels_at(scene.path, scene.layer, scene.site)
    texts = snippets_at(scene.path, scene.layer, scene.site)
    rho = float(correlation_at(scene.path, scene.layer, scene.site)[pair])
    halves = half_rho_at(scene.path, scene.layer, scene.site, pair)
    words = f"ρ = {number(rho, '+.3f')}"
    if halves is not None:
        first, second = (number(each, "+.3f") for each in halves)
        words += f" · first half of the corpus {first}, second half {second}"
    with st.container(border=True, key="pair"):
        st.markdown(f"**{name} N{pair[0]} and N{pair[1]}** · {words}")
        for column, neuron in zip(st.columns(2), pair, strict=True):
            with column:
                label = labels[neuron]
                fires = f"fires on **{session.plain(label)}**" if label else ""
                st.markdown(f"**N{neuron}** {fires}")
                if texts[neuron]:
                    st.caption(session.plain(texts[neuron]))
                session.show_link("neuron", f"Open N{neuron}", neuron=neuron)
        if not any(labels[neuron] for neuron in pair) and not scene.projection.has_examples:
            st.caption(
                "This projection holds no examples: make it again with `projector fit` to see what "
                "its neurons fire on."
            )
