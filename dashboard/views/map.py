"""The map of a layer, beside how far it can be trusted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import streamlit as st
from numpy.typing import NDArray

from dashboard.components.neuron_map import Panel, View, neuron_map, standalone_html
from dashboard.drawing import coloring, palette
from dashboard.drawing.legend import Legend
from dashboard.drawing.text import neuron_name, page_text
from dashboard.drawing.trust import trust_figures
from dashboard.frame import exports
from dashboard.frame.chosen import (
    marked_of,
    poles_shown,
    show_chosen,
    show_marked,
    sites_beside,
)
from dashboard.state import session
from dashboard.state.loading import extent_at, moments_at, points_at, poles_at
from dashboard.state.scene import Scene
from dashboard.state.selection import parse_neuron
from projector.errors import UserError
from projector.layouts.registry import OBJECTIVES
from projector.sites import site_words
from pruning.poles.poles import Poles

TITLE, ICON, PATH = "Map", ":material/scatter_plot:", "map"


def show(scene: Scene) -> None:
    """Draw the page."""
    st.title(session.plain(f"Layer {scene.layer}: {site_words(scene.site)}"))
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
        session.tell(problem, ":material/search_off:")
    sites = sites_beside(scene, scene.projection.maps)
    if len(sites) > 1:
        other = next(site for site in sites if site != scene.site)
        both = st.toggle(
            f"{site_words(other).capitalize()} beside it", value=True, key="map beside"
        )
        sites = sites if both else [scene.site]
    place, trust = st.columns([4, 1])
    with place, session.problems():
        view = draw(scene, sites, color, size)
        show_chosen(scene)
        show_marked(scene)
        _offer(scene, view)
    with trust:
        _show_trust(scene)
    _tell(scene)
    with place:
        _find_poles(scene, sites)


def _tell(scene: Scene) -> None:
    record = OBJECTIVES.get(scene.projection.layout(scene.layout).settings.objective)
    drag = (
        "Drag to move, wheel to zoom"
        if scene.dim < 3
        else "Drag to turn, wheel to zoom, Shift and drag to move"
    )
    st.caption(
        f"{drag}, R for the first view; click a neuron to choose it. "
        + ("" if record is None else record.read)
    )


def _find_poles(scene: Scene, sites: list[str]) -> None:
    """Poles that are not known yet, once the map is there: points first, their colours after."""
    missing = [site for site in sites if poles_shown(scene, site) is None]
    for site in missing:
        try:
            poles_at(
                scene.path,
                scene.layer,
                site,
                scene.layout,
                session.pole_settings(scene.projection, scene.layer, site),
            )
        except UserError as error:
            # A map without poles is a map still.
            st.caption(session.plain(f"No poles: {page_text(error)}"))
            return
    if missing:
        session.run_again()


def draw(scene: Scene, sites: list[str], color: str, size: str) -> View:
    """The maps of some sites side by side."""
    chosen = session.current()
    panels = []
    for site in sites:
        points = points_at(scene.path, scene.layer, site, scene.layout)
        poles = poles_shown(scene, site)
        try:
            measures = _measures(scene, site, {color, size})
            painted = _paint(scene, site, color, poles, measures)
        except UserError as error:
            if site == scene.site:
                raise
            # What the map beside it lacks is no reason to show neither.
            measures, painted = {}, coloring.color_alike(len(points))
            painted = replace(
                painted,
                values=np.full_like(painted.values, palette.NO_GROUP),
                legend=Legend("", ((page_text(error), None),)),
            )
        panels.append(
            Panel(
                title=f"Layer {scene.layer}: {site_words(site)}",
                name=neuron_name(scene.layer, site),
                points=points,
                values=painted.values,
                sizes=coloring.sizes_by(size, measures[size])
                if size in measures
                else coloring.plain_sizes(len(points)),
                selected=chosen.neuron if site == scene.site else None,
                marked=marked_of(scene) if site == scene.site else (),
                hover=coloring.hover_of(poles, measures),
                colors=painted.colors,
                legend=painted.legend,
            )
        )

    def pick(panel: int, neuron: int) -> None:
        session.change(site=sites[panel])
        session.change(neuron=neuron)

    view = View(
        panels,
        dim=scene.dim,
        extent=extent_at(scene.path, scene.layout),
        colors=palette.groups(),
        height=480,
        label=f"Map of layer {scene.layer}. Arrow keys {'move' if scene.dim < 3 else 'turn'} it, "
        "plus and minus zoom.",
    )
    neuron_map(view, key="layer map", on_pick=pick)
    return view


def _offer(scene: Scene, view: View) -> None:
    """Downloads of this map; what they hold is made when they are asked for."""
    # Found now: what makes a download knows nothing of the session.
    poles = poles_shown(scene, scene.site)
    stem = f"{scene.name.replace('/', '-')}-layer-{scene.layer}-{scene.site}"
    if scene.layout != scene.projection.layout_name():
        stem += f"-{scene.layout}"

    def table() -> pa.Table:
        return exports.neuron_table(scene.projection, scene.layer, scene.site, scene.layout, poles)

    icon = ":material/download:"
    with st.container(horizontal=True):
        st.download_button(
            "CSV",
            lambda: exports.csv_of(table()),
            f"{stem}.csv",
            "text/csv",
            icon=icon,
            on_click="ignore",
            help="Positions and poles of this layer and site, a row a neuron.",
        )
        st.download_button(
            "Parquet",
            lambda: exports.parquet_of(table()),
            f"{stem}.parquet",
            "application/octet-stream",
            icon=icon,
            on_click="ignore",
            help="The same for programs.",
        )
        st.download_button(
            "HTML",
            lambda: standalone_html(view, f"{scene.name}: layer {scene.layer}, {scene.site}"),
            f"{stem}.html",
            "text/html",
            icon=icon,
            on_click="ignore",
            help="This view as one page that needs no server. The button on the map saves a PNG.",
        )


def _paint(
    scene: Scene,
    site: str,
    color: str,
    poles: Poles | None,
    measures: dict[str, NDArray[np.floating]],
) -> coloring.Coloring:
    figures = scene.projection.figures(scene.layer, site)
    if color == "pole" and poles is not None:
        return coloring.color_by_pole(poles)
    if color in measures:
        return coloring.color_by_measure(color, measures[color])
    if color == "dead":
        return coloring.color_by_state(
            figures.n_neurons, list(figures.dead_neurons), list(figures.nonfinite_neurons)
        )
    found = coloring.color_alike(figures.n_neurons)
    if color == "pole":
        legend = Legend("Pole", (("not known yet", palette.NO_GROUP),))
        return replace(found, values=np.full_like(found.values, palette.NO_GROUP), legend=legend)
    return found


def _measures(scene: Scene, site: str, asked: set[str]) -> dict[str, NDArray[np.floating]]:
    """Mean and variance of every neuron, and what else is asked for, where they are kept."""
    if not scene.projection.has_statistics_of(scene.layer, site):
        if asked & set(coloring.MEASURES):
            # Says why there are none.
            scene.projection.mean(scene.layer, site)
        return {}
    mean, spread = moments_at(scene.path, scene.layer, site)
    found: dict[str, NDArray[np.floating]] = {"mean": mean, "spread": spread**2}
    if "importance" in asked:
        found["importance"] = scene.importance(site)
    return found


def _show_trust(scene: Scene) -> None:
    figures = scene.projection.figures(scene.layer, scene.site, scene.layout)
    st.markdown("**Trust this map?**")
    for each in trust_figures(figures, poles_shown(scene, scene.site), scene.dim):
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
        n = scene.projection.figures(layer, scene.site).n_neurons
        if neuron >= n:
            raise UserError(f"layer {layer} has no neuron {neuron:,}: give 0 to {n - 1:,}")
    except UserError as error:
        st.session_state["find problem"] = page_text(error)
        return
    session.change(layer=layer)
    session.change(neuron=neuron)
    # What was looked for is what is chosen now, until something else is.
    st.session_state["find neuron"] = ""
