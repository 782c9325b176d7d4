"""The map of a layer, beside how far it can be trusted."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace

import numpy as np
import pyarrow as pa
import streamlit as st
from numpy.typing import NDArray

from dashboard.components.neuron_map import Legend, Panel, View, neuron_map, standalone_html
from dashboard.drawing import coloring, palette
from dashboard.drawing.text import number
from dashboard.drawing.trust import trust_figures
from dashboard.frame import exports
from dashboard.frame.sidebar import Scene, neuron_name
from dashboard.measures import importance_of
from dashboard.state import session
from dashboard.state.loading import extent_at, known_poles, moments_at, points_at, poles_at
from dashboard.state.selection import parse_neuron
from projector.errors import UserError
from projector.sites import SITES, site_words
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
    st.caption(
        "Drag to turn, wheel to zoom, Shift and drag to move, R for the first view; click a neuron "
        "to choose it. "
        + (
            "Axes are in units of 1 − ρ, ρ being the correlation of two neurons' activations: two "
            "points are as far apart as that, as well as it can be had. How well, is said beside "
            "the map."
            if scene.projection.layout().settings.objective == "stress"
            else "Neighbours fire together; far distances mean little."
        )
    )


def _find_poles(scene: Scene, sites: list[str]) -> None:
    """Poles that are not known yet, once the map is there: points first, their colours after."""
    missing = [site for site in sites if _poles(scene, site) is None]
    for site in missing:
        try:
            poles_at(scene.path, scene.layer, site, session.pole_settings())
        except UserError as error:
            # A map without poles is a map still.
            st.caption(session.plain(f"No poles: {error}"))
            return
    if missing:
        session.run_again()


def sites_beside(scene: Scene, known: Container[tuple[int, str]]) -> list[str]:
    """The chosen site and the one that is shown beside it, MLP before attention.

    A click on one of two maps leaves both where they are.
    """
    pair = st.session_state.get("pair of sites", ())
    record = SITES.get(scene.site)
    beside = None if record is None else record.beside
    if scene.site in pair:
        beside = next(site for site in pair if site != scene.site)
    if beside is None or (scene.layer, beside) not in known:
        return [scene.site]
    found = sorted((scene.site, beside), key=list(SITES).index)
    st.session_state["pair of sites"] = tuple(found)
    return found


def draw(scene: Scene, sites: list[str], color: str, size: str) -> View:
    """The maps of some sites side by side."""
    chosen = session.current()
    panels = []
    for site in sites:
        points = points_at(scene.path, scene.layer, site)
        poles = _poles(scene, site)
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
                legend=Legend("", ((str(error), None),)),
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
        dim=scene.projection.dim,
        extent=extent_at(scene.path),
        colors=palette.groups(),
        height=480,
        label=f"Map of layer {scene.layer}. Arrow keys turn it, plus and minus zoom.",
    )
    neuron_map(view, key="layer map", on_pick=pick)
    return view


def show_chosen(scene: Scene, values: NDArray[np.floating] | None = None) -> None:
    """The neuron that is chosen, and the way to its card.

    Args:
        values: (N,) activations that the map shows.
    """
    neuron = session.current().neuron
    if neuron is None:
        return
    facts = [f"**{neuron_name(scene.layer, scene.site)} N{neuron}**"]
    poles = _poles(scene, scene.site)
    if poles is not None:
        pole = int(poles.labels[neuron])
        facts.append("in no pole" if pole < 0 else f"pole {pole}")
    if scene.projection.has_statistics_of(scene.layer, scene.site):
        mean, spread = (each[neuron] for each in moments_at(scene.path, scene.layer, scene.site))
        facts.append(f"over the corpus {number(mean)} ± {number(spread)}")
    if values is not None:
        facts.insert(1, f"activation {number(float(values[neuron]), '+.3g')}")
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(" · ".join(facts), width="content")
        if st.button("Open its card", key="open card", icon=":material/radio_button_checked:"):
            session.go("neuron")


def show_marked(scene: Scene) -> None:
    """Which neurons have a ring, and a button that lets go of them."""
    chosen = session.current()
    marked = marked_of(scene)
    if not marked:
        return
    first = ", ".join(f"N{j}" for j in marked[:12])
    what = "Marked" if chosen.pole is None else f"Pole {chosen.pole} is marked"
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(
            f"**{what}:** {len(marked):,} neurons, {first}{' …' if len(marked) > 12 else ''}",
            width="content",
        )
        st.button(
            "Let go",
            key="let go",
            icon=":material/close:",
            on_click=lambda: session.change(pole=None, marked=()),
        )


def _offer(scene: Scene, view: View) -> None:
    """Downloads of this map; what they hold is made when they are asked for."""
    # Found now: what makes a download knows nothing of the session.
    poles = _poles(scene, scene.site)
    stem = f"{scene.name.replace('/', '-')}-layer-{scene.layer}-{scene.site}"

    def table() -> pa.Table:
        return exports.neuron_table(scene.projection, scene.layer, scene.site, poles)

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
        found["importance"] = importance_of(scene, site)
    return found


def _poles(scene: Scene, site: str) -> Poles | None:
    return known_poles(scene.path, scene.layer, site, session.pole_settings())


def marked_of(scene: Scene) -> tuple[int, ...]:
    """The neurons of the chosen map that have a ring: those of a box, or of the chosen pole."""
    chosen, poles = session.current(), _poles(scene, scene.site)
    if chosen.marked or poles is None or chosen.pole is None:
        return tuple(j for j in chosen.marked if j < scene.n_neurons)
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
        n = scene.projection.figures(layer, scene.site).n_neurons
        if neuron >= n:
            raise UserError(f"layer {layer} has no neuron {neuron:,}: give 0 to {n - 1:,}")
    except (ValueError, UserError) as error:
        st.session_state["find problem"] = str(error)
        return
    session.change(layer=layer)
    session.change(neuron=neuron)
    # What was looked for is what is chosen now, until something else is.
    st.session_state["find neuron"] = ""
