"""The map of a layer, beside how far it can be trusted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import streamlit as st
from numpy.typing import NDArray

from dashboard import coloring, exports, session
from dashboard.components.neuron_map import Panel, View, neuron_map, standalone_html
from dashboard.frame import BESIDE, SITE_NAMES, Scene, neuron_name
from dashboard.loading import extent_at, moments_at, points_at, poles_at
from dashboard.measures import importance_of
from dashboard.selection import parse_neuron
from dashboard.trust import trust_figures
from projector.errors import UserError
from pruning.poles import Poles

TITLE, ICON, PATH = "Map", ":material/scatter_plot:", "map"


def show(scene: Scene) -> None:
    """Draw the page."""
    st.title(f"Layer {scene.layer}, {SITE_NAMES.get(scene.site, scene.site)}")
    left, middle, right = st.columns([2, 2, 3], vertical_alignment="bottom")
    color = left.selectbox(
        "Colour", list(coloring.COLORS), format_func=coloring.COLORS.__getitem__, key="map colour"
    )
    size = middle.selectbox(
        "Size", list(coloring.SIZES), format_func=coloring.SIZES.__getitem__, key="map size"
    )
    right.text_input(
        "Find a neuron",
        key="find neuron",
        placeholder="L3 N345",
        on_change=lambda: _find(scene),
    )
    problem = st.session_state.pop("find problem", None)
    if problem:
        st.error(session.plain(problem), icon=":material/search_off:")
    sites = [scene.site]
    beside = BESIDE.get(scene.site)
    if beside is not None and (scene.layer, beside) in scene.projection.maps:
        both = st.toggle(
            f"{SITE_NAMES[beside].capitalize()} beside it", value=True, key="map beside"
        )
        sites += [beside] if both else []
    place, trust = st.columns([4, 1])
    with place, session.problems():
        view = draw(scene, sites, color, size)
        _offer(scene, view)
    with trust:
        _show_trust(scene)
    st.caption(
        "Drag to turn, wheel to zoom, Shift and drag to move, R for the first view; click a neuron "
        "for its card. Two points are as far apart as 1 − ρ allows, ρ being the correlation of "
        "their activations: see beside the map how well that holds."
        if scene.projection.facts["layout"]["objective"] == "stress"
        else "Drag to turn, wheel to zoom, Shift and drag to move, R for the first view; click a "
        "neuron for its card."
    )


def draw(scene: Scene, sites: list[str], color: str, size: str) -> View:
    """The maps of some sites side by side."""
    chosen = session.current()
    panels, colors, legend = [], None, None
    for site in sites:
        points = points_at(scene.path, scene.layer, site)
        poles = _poles(scene, site)
        measures = _measures(scene, site, {color, size})
        painted = _paint(scene, site, color, poles, measures)
        if colors is None:
            colors, legend = painted.colors, painted.legend
        panels.append(
            Panel(
                title=f"Layer {scene.layer}: {SITE_NAMES.get(site, site)}",
                name=neuron_name(scene.layer, site),
                points=points,
                values=painted.values,
                sizes=coloring.sizes_by(size, measures[size])
                if size in measures
                else coloring.plain_sizes(len(points)),
                selected=chosen.neuron if site == scene.site else None,
                marked=_marked(poles, len(points)) if site == scene.site else (),
                hover=coloring.hover_of(poles, measures),
            )
        )
    assert colors is not None

    def pick(panel: int, neuron: int) -> None:
        session.change(site=sites[panel])
        session.change(neuron=neuron)

    view = View(
        panels,
        dim=scene.projection.dim,
        extent=extent_at(scene.path),
        colors=colors,
        legend=legend,
        label=f"Map of layer {scene.layer}. Arrow keys turn it, plus and minus zoom.",
    )
    neuron_map(view, key="layer map", on_pick=pick)
    return view


def _offer(scene: Scene, view: View) -> None:
    """Downloads of this map; what they hold is made when they are asked for."""
    stem = f"{scene.name.replace('/', '-')}-layer-{scene.layer}-{scene.site}"

    def table() -> pa.Table:
        poles = _poles(scene, scene.site)
        return exports.neuron_table(scene.projection, scene.layer, scene.site, poles)

    columns = st.columns(4)
    columns[0].download_button("CSV", lambda: exports.csv_of(table()), f"{stem}.csv", "text/csv")
    columns[1].download_button(
        "Parquet",
        lambda: exports.parquet_of(table()),
        f"{stem}.parquet",
        "application/octet-stream",
    )
    columns[2].download_button(
        "HTML",
        lambda: standalone_html(view, f"{scene.name}: layer {scene.layer}, {scene.site}"),
        f"{stem}.html",
        "text/html",
        help="This view as one page that needs no server. For a PNG use the camera on the map.",
    )


def _paint(
    scene: Scene,
    site: str,
    color: str,
    poles: Poles | None,
    measures: dict[str, NDArray[np.floating]],
) -> coloring.Coloring:
    figures: dict[str, Any] = scene.projection.figures(scene.layer, site)
    if color == "pole" and poles is not None:
        return coloring.color_by_pole(poles)
    if color in measures:
        return coloring.color_by_measure(color, measures[color])
    if color == "dead":
        return coloring.color_by_state(
            figures["n_neurons"], figures["dead_neurons"], figures["nonfinite_neurons"]
        )
    return coloring.color_alike(figures["n_neurons"])


def _measures(scene: Scene, site: str, asked: set[str]) -> dict[str, NDArray[np.floating]]:
    """Mean and variance of every neuron, and what else is asked for, where they are kept."""
    if not scene.projection.has_statistics:
        if asked & set(coloring.MEASURES):
            raise UserError(
                "this projection was saved without statistics, so that there is no mean, variance "
                "or importance: make it again with `projector fit`, without --no-statistics"
            )
        return {}
    mean, spread = moments_at(scene.path, scene.layer, site)
    found: dict[str, NDArray[np.floating]] = {"mean": mean, "spread": spread**2}
    if "importance" in asked:
        found["importance"] = importance_of(scene, site)
    return found


def _poles(scene: Scene, site: str) -> Poles | None:
    try:
        return poles_at(scene.path, scene.layer, site, session.pole_settings())
    except UserError:
        # A map without poles is a map still.
        return None


def _marked(poles: Poles | None, n_neurons: int) -> tuple[int, ...]:
    """The neurons that another page chose, or the pole's."""
    chosen = session.current()
    if chosen.marked or poles is None or chosen.pole is None:
        return tuple(j for j in chosen.marked if j < n_neurons)
    return tuple((poles.labels == chosen.pole).nonzero()[:, 0].tolist())


def _show_trust(scene: Scene) -> None:
    figures = scene.projection.figures(scene.layer, scene.site)
    st.markdown("**Trust this map?**")
    for each in trust_figures(figures, _poles(scene, scene.site), scene.projection.dim):
        st.metric(each.name, each.value, help=each.meaning)


def _find(scene: Scene) -> None:
    text = st.session_state["find neuron"].strip()
    if not text:
        return
    try:
        layer, neuron = parse_neuron(text)
        layers = [each for each, site in scene.projection.maps if site == scene.site]
        layer = scene.layer if layer is None else layer
        if layer not in layers:
            raise UserError(f"there is no layer {layer} here: give {layers[0]} to {layers[-1]}")
        n = int(scene.projection.figures(layer, scene.site)["n_neurons"])
        if neuron >= n:
            raise UserError(f"layer {layer} has no neuron {neuron:,}: give 0 to {n - 1:,}")
    except (ValueError, UserError) as error:
        st.session_state["find problem"] = str(error)
        return
    session.change(layer=layer)
    session.change(neuron=neuron)
