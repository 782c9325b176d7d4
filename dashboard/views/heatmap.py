"""Correlations before and after ordering, on one colour scale."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import streamlit as st
from numpy.typing import NDArray

from dashboard import session
from dashboard.exports import offer_figure
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
_MOST_NAMED = 4
# Blue for below zero, orange for above, as on maps; zero is the page: what is there stands out.
_LIGHT_SCALE = ("#0b4a8f", "#3f8fd6", "#a9cdea", "#fafafa", "#f0c7a0", "#dd7a2c", "#963c05")
_DARK_SCALE = ("#9bd0ff", "#3f8fd6", "#1c4a75", "#17191d", "#6e3a12", "#dd7a2c", "#ffc999")
_LIMITS: list[str | float] = ["auto", 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0]


def show(scene: Scene) -> None:
    """Draw the page."""
    st.title("Correlations")
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
        rho = correlation_at(scene.path, scene.layer, scene.site)
        ordered = _order(scene, by)
        most = usual_limit(rho) if isinstance(limit, str) else float(limit)
        shown = [("index", _order(scene, "index"))] if before and by != "index" else []
        shown.append((by, ordered))
        places = st.columns(len(shown))
        for place, (name, order) in zip(places, shown, strict=True):
            with place:
                _draw(scene, rho, order, name, most, alone=len(shown) == 1)
        _show_marked()
    st.caption(
        "Drag a box to choose neurons: they are marked here, on the map and on a prompt; a double "
        f"click lets go of them. Where there are more than {_MOST_CELLS} neurons, a cell is the "
        "mean over the pairs of some."
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
    scene: Scene,
    rho: NDArray[np.float32],
    order: NDArray[np.int64],
    name: str,
    limit: float,
    *,
    alone: bool,
) -> None:
    if not len(order):
        raise UserError("no neuron of this layer varies, so that there is no correlation")
    figure = heatmap(
        rho,
        order,
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
        chosen = chosen_in(st.session_state[key]["selection"].get("box") or (), order)
        session.change(marked=tuple(chosen), **({"neuron": chosen[0]} if chosen else {}))

    st.plotly_chart(figure, key=key, on_select=select, selection_mode="box")
    offer_figure(figure, f"{scene.name.replace('/', '-')}-heatmap-{name}-layer-{scene.layer}")


def _show_marked() -> None:
    marked = session.current().marked
    if marked:
        first = ", ".join(f"N{j}" for j in marked[:20])
        st.markdown(f"**{len(marked):,} chosen:** {first}{' …' if len(marked) > 20 else ''}")


def chosen_in(boxes: Iterable[Mapping[str, Any]], order: NDArray[np.int64]) -> list[int]:
    """The neurons of the rows and columns that boxes touch, ascending.

    Args:
        boxes: as Plotly tells them on axes of names: ``x`` and ``y`` from one number of a cell to
            another, a cell reaching half a number to either side.
    """
    n_per_cell = -(-len(order) // _MOST_CELLS)
    found: set[int] = set()
    for box in boxes:
        for axis in ("x", "y"):
            ends = [float(v) for v in box.get(axis) or ()]
            if len(ends) == 2:
                low, high = sorted(ends)
                # Beside the picture there is nothing, and not the other end.
                first = max(0, int(np.floor(low + 0.5)) * n_per_cell)
                last = max(0, (int(np.floor(high + 0.5)) + 1) * n_per_cell)
                found |= {int(j) for j in order[first:last]}
    return sorted(found)


def _label(neurons: NDArray[np.int64]) -> str:
    """Of a cell: its neurons, or the first of them."""
    named = ", ".join(f"N{j}" for j in neurons[:_MOST_NAMED])
    more = len(neurons) - _MOST_NAMED
    return named if more <= 0 else f"{named}, {more} more"


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
    *,
    dark: bool = False,
) -> go.Figure:
    """ρ of neurons in an order; blocks of several where there are many; ``marked`` ones told."""
    n = len(order)
    n_per_cell = -(-n // _MOST_CELLS)
    shown = rho[order][:, order]
    if n_per_cell > 1:
        starts = np.arange(0, n, n_per_cell)
        counts = np.diff(np.append(starts, n))
        # A neuron with itself is no pair: averaged in, it would draw a diagonal.
        sums = shown.astype(np.float64)
        np.fill_diagonal(sums, 0)
        sums = np.add.reduceat(np.add.reduceat(sums, starts, 0), starts, 1)
        n_pairs = np.outer(counts, counts) - np.diag(counts)
        shown = np.where(n_pairs > 0, sums / np.maximum(n_pairs, 1), np.nan).astype(np.float32)
        labels = [_label(order[s : s + n_per_cell]) for s in starts]
    else:
        labels = [f"N{j}" for j in order]
    colors = _DARK_SCALE if dark else _LIGHT_SCALE
    scale = [[k / (len(colors) - 1), color] for k, color in enumerate(colors)]
    figure = go.Figure(
        go.Heatmap(
            z=np.round(shown, 3),
            x=labels,
            y=labels,
            zmin=-limit,
            zmax=limit,
            colorscale=scale,
            colorbar={"title": "ρ", "thickness": 12, "len": 0.8},
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
