"""A report of a contrast on a page: panels, captions that say what they say, and what to save."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import plotly.graph_objects as go
import streamlit as st

from dashboard.contrast.reports import rows_of
from dashboard.frame.exports import csv_of
from dashboard.state import session
from dashboard.state.scene import Scene
from projector.figures.contrast.effects import effects_figure, effects_of, why_no_effects
from projector.figures.contrast.growth import growth_figure
from projector.figures.contrast.page import contrast_page, lead, title
from projector.figures.contrast.panels import panels
from projector.figures.contrast.series import Facts, ModelRows, read_models
from projector.figures.contrast.sharing import sharing_figure, sharing_of
from projector.figures.contrast.untangling import untangling_figure, untangling_of
from projector.figures.contrast.words import (
    HOW_EFFECTS,
    HOW_GROWTH,
    HOW_PANELS,
    HOW_SHARING,
    HOW_UNTANGLING,
    cosine_words,
    effects_words,
    growth_words,
    untangling_words,
    variance_words,
)
from projector.storage.versions import json_text

_TABS = ("How they part", "Why variance grows", "Shared directions", "Samples", "The direction")
_NOT_NAMED = re.compile(r"[^\w-]+")


def show_report(scene: Scene, facts: Facts) -> None:
    """Draw all that a report holds, the selection's layer marked."""
    models = read_models(facts)
    st.subheader(session.plain(title(facts)))
    st.caption(session.plain(lead(facts).replace("\n\n", " ")))
    _show_exports(facts)
    tabs = st.tabs(list(_TABS))
    with tabs[0]:
        names = (str(facts.get("positive_name")), str(facts.get("negative_name")))
        _draw(scene, facts, "panels", panels(facts, layer=scene.layer), _layer_of_depth)
        _say([(m, f"{cosine_words(m)} {variance_words(m, names)}") for m in models], HOW_PANELS)
    with tabs[1]:
        _draw(scene, facts, "growth", growth_figure(facts, layer=scene.layer), _layer_of_number)
        _say([(m, growth_words(facts, m)) for m in models], HOW_GROWTH)
    for tab, show in zip(tabs[2:], (_show_sharing, _show_samples, _show_effects), strict=True):
        with tab:
            for model in models:
                if len(models) > 1:
                    st.markdown(f"**{session.plain(model.model)}**")
                show(scene, facts, model)


def _show_sharing(scene: Scene, facts: Facts, model: ModelRows) -> None:
    figure = sharing_figure(facts, model.model, layer=scene.layer)
    found = sharing_of(facts, model.model)
    if figure is None or found is None:
        reason = str((found or {}).get("reason") or "").rstrip(".")
        why = f": {reason}" if reason else ""
        st.caption(session.plain(f"Successive layers of this model were not compared{why}."))
        return
    _draw(scene, facts, f"sharing {model.model}", figure, _layer_of_number)
    notes = " ".join(str(note) for note in found.get("notes") or ())
    _say([(model, f"{found.get('sentence') or ''} {notes}".strip())], HOW_SHARING)


def _show_samples(scene: Scene, facts: Facts, model: ModelRows) -> None:
    figure = untangling_figure(facts, model.model, layer=scene.layer)
    if figure is None:
        st.caption("No probe was fitted on this model.")
        return
    _draw(scene, facts, f"samples {model.model}", figure, _layer_of_depth)
    _say([(model, untangling_words(untangling_of(facts, model.model)))], HOW_UNTANGLING)


def _show_effects(scene: Scene, facts: Facts, model: ModelRows) -> None:
    figure = effects_figure(facts, model.model, layer=scene.layer)
    if figure is None:
        st.caption(session.plain(why_no_effects(facts, model.model)))
        return
    _draw(scene, facts, f"direction {model.model}", figure, None)
    _say([(model, effects_words(effects_of(facts, model.model)))], HOW_EFFECTS)


def _draw(
    scene: Scene,
    facts: Facts,
    name: str,
    figure: go.Figure,
    layer_at: Callable[[float], int] | None,
) -> None:
    """A figure whose menu saves it as PNG; a click on a mark selects its layer."""
    key = f"contrast {name}"
    config = {
        "displaylogo": False,
        "toImageButtonOptions": {"format": "png", "scale": 2, "filename": _stem(facts, name)},
    }
    if layer_at is None:
        st.plotly_chart(figure, key=key, config=config)
        return
    # What is clicked is a layer, and no choice among the marks.
    figure.update_traces(selector={"type": "scatter"}, unselected={"marker": {"opacity": 1}})
    figure.update_traces(selector={"type": "bar"}, unselected={"marker": {"opacity": 1}})

    def pick() -> None:
        points = st.session_state[key].selection.points
        if points and isinstance(points[0].get("x"), int | float):
            _choose_layer(scene, layer_at(float(points[0]["x"])))

    st.plotly_chart(figure, key=key, config=config, on_select=pick, selection_mode="points")


def _layer_of_depth(depth: float) -> int:
    """The layer that has written last at a depth; the first, of the embedding."""
    return max(0, math.ceil(depth) - 1)


def _layer_of_number(layer: float) -> int:
    return round(layer)


def _choose_layer(scene: Scene, layer: int) -> None:
    """Select a layer on every page, where the projection has a map of it."""
    sites = [site for each, site in scene.projection.maps if each == layer]
    if sites:
        session.change(layer=layer, site=scene.site if scene.site in sites else sites[0])


def _say(said: list[tuple[ModelRows, str]], how: str) -> None:
    """What was found, and how to read the figure."""
    for model, text in said:
        shown = text if len(said) == 1 else f"{model.model}: {text}"
        if shown:
            st.markdown(session.plain(shown))
    st.caption(session.plain(how))


def _show_exports(facts: Facts) -> None:
    """Buttons that save the whole report."""
    stem = _stem(facts, "contrast")
    with st.container(horizontal=True):
        for label, kind, make, words in (
            ("HTML", "text/html", lambda: contrast_page(facts), "All figures as one page."),
            ("JSON", "application/json", lambda: json_text(dict(facts)), "All numbers."),
            ("CSV", "text/csv", lambda: csv_of(rows_of(facts)), "One row a layer and stream."),
        ):
            st.download_button(
                label,
                make,
                f"{stem}.{label.lower()}",
                kind,
                key=f"contrast {label}",
                icon=":material/download:",
                on_click="ignore",
                help=f"{words} Figures are saved as PNG by the camera above each.",
            )


def _stem(facts: Facts, name: str) -> str:
    """The name of a file: the model's, the sets' and what it shows."""
    parts = (read_models(facts)[0].model, facts.get("pair") or title(facts), name)
    return "-".join(_NOT_NAMED.sub("-", str(part)).strip("-")[:40] for part in parts)
