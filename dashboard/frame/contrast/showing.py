"""Show a report of a contrast: panels, captions, and downloads."""

from __future__ import annotations

import math
import re
from hashlib import sha256

import plotly.graph_objects as go
import streamlit as st

from dashboard.contrast.reports import rows_of
from dashboard.frame.exports import csv_of
from dashboard.frame.residual.places import choose_layer
from dashboard.state import session
from dashboard.state.loading import kept
from dashboard.state.scene import Scene
from projector.figures.contrast.page import contrast_page, lead, title
from projector.figures.contrast.sections import Part, sections
from projector.figures.contrast.series import Facts, read_models
from projector.storage.versions import json_text

_TAB = "contrast part"
_NOT_NAMED = re.compile(r"[^\w-]+")


def show_report(scene: Scene, facts: Facts) -> None:
    """Draw a report, with the selected layer marked."""
    st.subheader(session.plain(title(facts)))
    st.caption(session.plain(lead(facts).replace("\n\n", " ")))
    _show_exports(facts)
    parts = _parts(facts, scene.layer)
    titles = list(dict.fromkeys(part.title for part in parts))
    is_of_several = len(read_models(facts)) > 1
    tabs = st.tabs(titles, key=_TAB, on_change=session.keep(_TAB, titles[0]))
    for tab, name in zip(tabs, titles, strict=True):
        if not tab.open:
            continue
        with tab:
            for part in parts:
                if part.title == name:
                    _show_part(scene, facts, part, is_named=is_of_several)


def _parts(facts: Facts, layer: int) -> tuple[Part, ...]:
    """The parts of a report; drawn once, because a click on a tab draws the whole page again."""
    text = json_text(dict(facts))

    def make() -> tuple[Part, ...]:
        found = sections(facts, layer=layer)
        for part in found:
            if part.figure is not None and part.axis is not None:
                # A click selects a layer, not a mark.
                for kind in ("scatter", "bar"):
                    part.figure.update_traces(
                        selector={"type": kind}, unselected={"marker": {"opacity": 1}}
                    )
        return found

    return kept(("contrast parts", sha256(text.encode("utf-8")).hexdigest(), layer), make)


def _show_part(scene: Scene, facts: Facts, part: Part, *, is_named: bool) -> None:
    """Draw a figure with its finding and how to read it."""
    if part.model is not None and is_named:
        st.markdown(f"**{session.plain(part.model)}**")
    if part.figure is not None:
        _draw(scene, facts, part, part.figure)
    for paragraph in part.found.split("\n\n"):
        st.markdown(session.plain(paragraph))
    choosing = _choosing_words(scene, part)
    for words in (part.how, choosing):
        if words:
            st.caption(session.plain(words))


def _choosing_words(scene: Scene, part: Part) -> str:
    """The meaning of grey, and the effect of a click; empty if the figure has neither."""
    if part.figure is None or part.axis is None:
        return ""
    words = "Click a mark to choose its layer on every page."
    if part.figure.layout.shapes:
        words = f"Grey marks layer {scene.layer}, which is chosen at the left. {words}"
    return words


def _draw(scene: Scene, facts: Facts, part: Part, figure: go.Figure) -> None:
    """Draw a figure whose menu saves a PNG; a click on a mark selects its layer."""
    name = part.name if part.model is None else f"{part.name} {part.model}"
    key = f"contrast {name}"
    config = {
        "displaylogo": False,
        "toImageButtonOptions": {"format": "png", "scale": 2, "filename": _stem(facts, name)},
    }
    # The picture's text for screen readers.
    words = f"{part.title}. {part.found}"
    if part.axis is None:
        st.plotly_chart(figure, key=key, config=config, alt=words)
        return
    layer_at = _layer_of_depth if part.axis == "depth" else _layer_of_number

    def pick() -> None:
        points = st.session_state[key].selection.points
        if points and isinstance(points[0].get("x"), int | float):
            choose_layer(scene, layer_at(float(points[0]["x"])))

    st.plotly_chart(
        figure, key=key, config=config, on_select=pick, selection_mode="points", alt=words
    )


def _layer_of_depth(depth: float) -> int:
    """The last layer that has written at a depth; the first layer for the embedding."""
    return max(0, math.ceil(depth) - 1)


def _layer_of_number(layer: float) -> int:
    return round(layer)


def _show_exports(facts: Facts) -> None:
    """Buttons that save the whole report."""
    stem = _stem(facts, "contrast")
    with st.container(horizontal=True):
        for label, kind, make, words in (
            ("HTML", "text/html", lambda: contrast_page(facts), "Saves all figures as one page."),
            ("JSON", "application/json", lambda: json_text(dict(facts)), "Saves all numbers."),
            (
                "CSV",
                "text/csv",
                lambda: csv_of(rows_of(facts)),
                "Saves one row per layer and stream.",
            ),
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
