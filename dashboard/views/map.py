"""The map of a layer, with how far it can be trusted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import streamlit as st
from numpy.typing import NDArray

from dashboard.components.neuron_map import Panel, View, neuron_map, standalone_html
from dashboard.drawing import coloring, palette
from dashboard.drawing.legend import Legend, groups_of
from dashboard.drawing.text import neuron_name, page_text
from dashboard.drawing.trust import trust_figures
from dashboard.frame import exports
from dashboard.frame.chosen import (
    axes_of,
    choose_layout,
    poles_shown,
    show_chosen,
    show_marked,
    sites_beside,
)
from dashboard.neuron_facts import neighbours
from dashboard.state import session
from dashboard.state.loading import correlation_at, moments_at, points_at, poles_at
from dashboard.state.naming import labels_at, pole_names, snippets_at
from dashboard.state.scene import Scene
from projector.errors import UserError
from projector.layouts.registry import OBJECTIVES
from projector.projection.verdict import verdict
from projector.sites import site_words
from pruning.poles.poles import Poles

TITLE, ICON, PATH = "Map", ":material/scatter_plot:", "map"
USUAL_COLOR = "pole"
_HEIGHT = 600
# With more neurons, sending texts would delay the map too much.
_MOST_SNIPPETS = 8_000


def show(scene: Scene) -> None:
    """Draw the page."""
    st.title(session.plain(f"Layer {scene.layer}: {site_words(scene.site)}"))
    sites, color, size = _choose(scene)
    with session.problems():
        view = draw(scene, sites, color, size)
        _show_trust(scene)
        show_chosen(scene)
        show_marked(scene)
        _offer(scene, view)
    _find_poles(scene, sites)


def _choose(scene: Scene) -> tuple[list[str], str, str]:
    """Choose the sites, the colouring and the sizes."""
    chosen = session.current()
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        choose_layout(scene)
        color = chosen.color if chosen.color in coloring.COLORS else USUAL_COLOR
        session.bind("map colour", color)
        st.selectbox(
            "Colour",
            list(coloring.COLORS),
            format_func=coloring.COLORS.__getitem__,
            key="map colour",
            on_change=lambda: session.change(
                color=None
                if st.session_state["map colour"] == USUAL_COLOR
                else st.session_state["map colour"]
            ),
            width=165,
        )
        size = st.selectbox(
            "Size",
            list(coloring.SIZES),
            format_func=coloring.SIZES.__getitem__,
            key="map size",
            on_change=session.keep("map size", "none"),
            width=145,
        )
        sites = sites_beside(scene, scene.projection.maps)
        if len(sites) > 1:
            both = st.toggle(
                "Both sites",
                key="map beside",
                on_change=session.keep("map beside", False),
            )
            sites = sites if both else [scene.site]
    return sites, color, size


def _find_poles(scene: Scene, sites: list[str]) -> None:
    """Find poles that are not known yet, after the map is drawn: points first, then colours."""
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
            # A map is shown also without poles.
            st.caption(session.plain(f"No poles: {page_text(error)}"))
            return
    if missing:
        session.run_again()


def draw(scene: Scene, sites: list[str], color: str, size: str) -> View:
    """Draw the maps of some sites side by side."""
    view = View(
        [_panel(scene, site, color, size) for site in sites],
        dim=scene.dim,
        height=_HEIGHT,
        label=f"Map of layer {scene.layer}. Arrow keys {'move' if scene.dim < 3 else 'turn'} it, "
        "plus and minus zoom.",
        axes=axes_of(scene),
        beside=sites.index(scene.site),
        has_lasso=True,
    )

    def pick(panel: int, neuron: int) -> None:
        session.change(site=sites[panel])
        pole = session.current().pole
        poles = poles_shown(scene, sites[panel])
        # A highlighted pole stays highlighted while one of its neurons is selected.
        is_of_it = poles is not None and pole is not None and int(poles.labels[neuron]) == pole
        session.change(neuron=neuron, isolate=None, pole=pole if is_of_it else None)

    def choose(panel: int, pole: int | None) -> None:
        session.change(site=sites[panel])
        session.change(pole=pole, marked=())

    def isolate(panel: int, neuron: int | None) -> None:
        session.change(site=sites[panel])
        session.change(isolate=neuron)

    def mark(panel: int, neurons: tuple[int, ...]) -> None:
        session.change(site=sites[panel])
        session.change(marked=neurons, pole=None)

    neuron_map(
        view,
        key="layer map",
        on_pick=pick,
        on_choose=choose,
        on_isolate=isolate,
        on_mark=mark,
    )
    return view


def _panel(scene: Scene, site: str, color: str, size: str) -> Panel:
    """The map of one site; its legend reports what the site next to the chosen one lacks."""
    chosen = session.current()
    points = points_at(scene.path, scene.layer, site, scene.layout)
    poles = poles_shown(scene, site)
    try:
        measures = _measures(scene, site, {color, size})
        painted = _paint(scene, site, color, poles, measures)
    except UserError as error:
        if site == scene.site:
            raise
        # This map is shown even if the other map lacks the measure.
        measures, painted = {}, coloring.color_alike(len(points))
        painted = replace(
            painted,
            values=np.full_like(painted.values, palette.NO_GROUP),
            legend=Legend("", ((page_text(error), None),)),
        )
    panel = Panel(
        title=f"Layer {scene.layer}: {site_words(site)}",
        name=neuron_name(scene.layer, site),
        points=points,
        values=painted.values,
        sizes=coloring.sizes_by(size, measures[size])
        if size in measures
        else coloring.plain_sizes(len(points)),
        groups=None
        if poles is None
        else groups_of(poles, pole_names(scene.path, poles, scene.layout)),
        is_by_group=color == "pole",
        labels=labels_at(scene.path, scene.layer, site),
        snippets=snippets_at(scene.path, scene.layer, site)
        if len(points) <= _MOST_SNIPPETS
        else (),
        hover=coloring.hover_of(measures),
        colors=painted.colors,
        colors_dark=painted.colors_dark,
        legend=replace(painted.legend, size=coloring.size_words(size)),
    )
    if site != scene.site:
        return panel
    neuron = chosen.neuron if chosen.isolate is None else chosen.isolate
    return replace(
        panel,
        selected=neuron,
        near=() if neuron is None else _near(scene, neuron),
        is_isolated=chosen.isolate is not None,
        # A chosen pole is highlighted as a whole, and needs no rings.
        marked=()
        if chosen.pole is not None
        else tuple(j for j in chosen.marked if j < len(points)),
        group=chosen.pole,
    )


def _near(scene: Scene, neuron: int) -> tuple[tuple[int, float], ...]:
    """The neurons most correlated with one, and their ρ; empty if ρ was not kept."""
    if neuron >= scene.n_neurons or not scene.projection.has_statistics_of(scene.layer, scene.site):
        return ()
    highest, _ = neighbours(correlation_at(scene.path, scene.layer, scene.site), neuron)
    return tuple((each.neuron, round(each.rho, 4)) for each in highest)


def _offer(scene: Scene, view: View) -> None:
    """Downloads of this map; their content is made after a click."""
    # Found now, because the code that makes a download has no session.
    poles = poles_shown(scene, scene.site)
    stem = f"{scene.name.replace('/', '-')}-layer-{scene.layer}-{scene.site}"
    if scene.layout != scene.projection.layout_name():
        stem += f"-{scene.layout}"

    def table() -> pa.Table:
        found = exports.neuron_table(scene.projection, scene.layer, scene.site, scene.layout, poles)
        named = () if poles is None else pole_names(scene.path, poles, scene.layout)
        return exports.with_labels(found, labels_at(scene.path, scene.layer, scene.site), named)

    icon = ":material/download:"
    with st.container(horizontal=True):
        st.download_button(
            "CSV",
            lambda: exports.csv_of(table()),
            f"{stem}.csv",
            "text/csv",
            icon=icon,
            on_click="ignore",
            help="Saves positions and poles of this layer and site, one row per neuron.",
        )
        st.download_button(
            "Parquet",
            lambda: exports.parquet_of(table()),
            f"{stem}.parquet",
            "application/octet-stream",
            icon=icon,
            on_click="ignore",
            help="Saves the same table as Parquet, for programs.",
        )
        st.download_button(
            "HTML",
            lambda: standalone_html(view, f"{scene.name}: layer {scene.layer}, {scene.site}"),
            f"{stem}.html",
            "text/html",
            icon=icon,
            on_click="ignore",
            help="Saves this view as one page that needs no server. The button on the map saves a "
            "PNG.",
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
        legend = Legend("", (("poles are not known yet", palette.NO_GROUP),))
        return replace(found, values=np.full_like(found.values, palette.NO_GROUP), legend=legend)
    return found


def _measures(scene: Scene, site: str, asked: set[str]) -> dict[str, NDArray[np.floating]]:
    """Mean and variance of every neuron, and other chosen measures, if they are kept."""
    if not scene.projection.has_statistics_of(scene.layer, site):
        if asked & set(coloring.MEASURES):
            # Reports why there are none.
            scene.projection.mean(scene.layer, site)
        return {}
    mean, spread = moments_at(scene.path, scene.layer, site)
    found: dict[str, NDArray[np.floating]] = {"mean": mean, "spread": spread**2}
    if "importance" in asked:
        found["importance"] = scene.importance(site)
    return found


def _show_trust(scene: Scene) -> None:
    """Show how faithful the map is: one sentence, and the figures behind it."""
    record = OBJECTIVES.get(scene.projection.layout(scene.layout).settings.objective)
    figures = scene.projection.figures(scene.layer, scene.site, scene.layout)
    said = verdict(figures, scene.projection.layout(scene.layout).settings.objective)
    st.caption(session.plain(f"{said[:1].upper()}{said[1:]}."))
    with st.expander("How faithful is this map?", icon=":material/straighten:"):
        found = trust_figures(figures, poles_shown(scene, scene.site), scene.dim)
        for column, each in zip(st.columns(len(found)), found, strict=True):
            column.metric(each.name, each.value, help=each.meaning)
        drag = "Drag to move" if scene.dim < 3 else "Drag to turn, Shift and drag to move"
        lasso = ", Shift and drag to select" if scene.dim < 3 else ""
        st.caption(
            f"{drag}{lasso}, Ctrl and wheel to zoom, double click or R to reset the view; click a "
            "neuron to see its most correlated neurons. " + ("" if record is None else record.read)
        )
