"""The sidebar of every page, and the choices in it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import streamlit as st

from dashboard.frame.side.importing import show_import
from dashboard.frame.side.links import check_details, check_place
from dashboard.frame.side.search import ask_search
from dashboard.state import session
from dashboard.state.loading import folders_with, projection_at
from dashboard.state.scene import Scene, usual_layout, usual_model
from dashboard.state.settings import (
    USUAL_PROJECTION,
    Settings,
    parse_settings,
)
from projector.errors import UserError
from projector.figures.axes import N_SHOWN
from projector.model.loading import BUNDLED
from projector.projection.overview import FACTS_FILE
from projector.projection.projection import Projection
from projector.sites import SITES, site_words


def read_settings() -> Settings:
    """The settings that the app was started with."""
    return parse_settings(sys.argv[1:])


def choose_scene(settings: Settings) -> Scene | None:
    """Draw the sidebar, and return the chosen scene; None if there is no projection.

    Raises:
        UserError: if the chosen projection is damaged; the user can choose another in the sidebar.
    """
    session.say_again()
    found = folders_with(settings.roots, FACTS_FILE)
    if settings.projection is not None and settings.projection not in found:
        session.tell(
            f"'{settings.projection}' isn't a projection: {FACTS_FILE} is missing; make one with "
            f"projector fit MODEL --corpus SOURCE --out {settings.projection}"
        )
    if not found:
        return None
    chosen = session.current()
    known = [name for name in (settings.projection, USUAL_PROJECTION, *found) if name in found]
    usual = str(known[0])
    if chosen.projection is not None and chosen.projection not in found:
        session.say(
            f"Projection {chosen.projection[:80]} isn't here, so {usual} is shown. If it lies in "
            "another folder, start the app with --root and that folder."
        )
    name = chosen.projection if chosen.projection in found else usual
    with st.sidebar:
        session.bind("choose projection", name)
        st.selectbox(
            "Projection",
            list(found),
            key="choose projection",
            on_change=lambda: session.change(projection=st.session_state["choose projection"]),
            help="Folders that `projector fit` wrote, below "
            + ", ".join(f"`{root.name}/`" for root in settings.roots),
        )
        try:
            projection = projection_at(found[name])
        except UserError:
            st.caption("Choose another one, or make it again:")
            st.code("projector fit MODEL --corpus SOURCE --out DIR --force", language=None)
            raise
        ask_search(projection)
        chosen = session.current()
        layout = _layout_of(projection)
        layer, site = _choose_map(projection)
        scene = Scene(
            settings=settings,
            name=name,
            path=found[name],
            projection=projection,
            layer=layer,
            site=site,
            layout=layout,
            model_name=_choose_model(settings, projection),
            sha256=projection.facts.model.sha256,
        )
        if (chosen.projection, chosen.layer, chosen.site) != (name, layer, site):
            _fill_in(projection=name, layer=layer, site=site)
        show_import(settings)
    check_place(chosen, scene)
    check_details(scene)
    return scene


def _fill_in(**shown: Any) -> None:
    """Select the shown map; other parts of a link stay if they belong to the same map."""
    chosen = session.current()
    kept: dict[str, Any] = {}
    if all(getattr(chosen, key) in (None, value) for key, value in shown.items()):
        own = "model layout neuron head pole marked isolate target against reading between"
        kept = {name: getattr(chosen, name) for name in own.split()}
    session.change(**shown, **kept)


def _layout_of(projection: Projection) -> str:
    """The layout whose positions are shown; pages with a map offer a choice."""
    chosen, usual = session.current().layout, usual_layout(projection)
    if chosen is None or chosen in projection.layouts:
        return chosen or usual
    session.change(layout=None)
    return usual


def _choose_map(projection: Projection) -> tuple[int, str]:
    chosen = session.current()
    sites = [site for site in projection.sites if any(s == site for _, s in projection.maps)]
    site = chosen.site if chosen.site in sites else sites[0]
    layers = [layer for layer, s in projection.maps if s == site]
    layer = chosen.layer if chosen.layer in layers else layers[0]
    session.bind("choose site", site)
    st.selectbox(
        "Site",
        sites,
        key="choose site",
        format_func=lambda s: f"{site_words(s)} ({s})",
        on_change=lambda: session.change(site=st.session_state["choose site"]),
        help="Where in a layer activations are read.\n\n"
        + "\n".join(f"- {SITES[s].words}: {SITES[s].help}" for s in sites if s in SITES),
    )
    if len(layers) > 1:
        session.bind("choose layer", layer)
        st.select_slider(
            "Layer",
            layers,
            key="choose layer",
            on_change=lambda: session.change(layer=st.session_state["choose layer"]),
        )
    else:
        st.caption(f"Layer {layer}")
    return layer, site


def _choose_model(settings: Settings, projection: Projection) -> str:
    """Choose the model for a projection: ``--model``, or a folder below the roots."""
    folders = folders_with(settings.roots, "config.json")
    usual = usual_model(settings, projection, folders)
    chosen = session.current().model
    given = () if settings.model is None else (settings.model,)
    names = list(dict.fromkeys((usual, *given, *folders)))
    name = usual if chosen is None or chosen not in names else chosen
    if chosen not in (None, name):
        session.change(model=None)
    if len(names) > 1:
        session.bind("choose model", name)
        st.selectbox(
            "Model",
            names,
            key="choose model",
            on_change=lambda: session.change(
                model=None
                if st.session_state["choose model"] == usual
                else st.session_state["choose model"]
            ),
            help="Its weights must be the ones that the projection was fitted with. To use a "
            "model in another folder, start the app with `--model` and that folder.",
        )
    is_given = name == settings.model
    return str(folders[name]) if name in folders and not is_given else name


def _can_be_found(scene: Scene) -> bool:
    """Whether a projection's model is the bundled model, on the hub, or in a folder here."""
    name = scene.model_name
    if name == scene.settings.model or Path(name).is_absolute():
        return True
    # A local model has its folder's name, without an owner as on the hub.
    return name == BUNDLED or "/" in name


def tell(scene: Scene, place: st.delta_generator.DeltaGenerator) -> None:
    """Show the loaded model and its device in the sidebar."""
    facts = scene.projection.facts
    corpus = facts.corpus
    n_tokens = "" if corpus is None else f"{corpus.n_tokens:,} tokens of {corpus.source}"
    # Only a folder's name, because other people who open the app need not know its path.
    path = Path(scene.model_name)
    model = path.name if path.is_absolute() else scene.model_name
    dimensions = "1 dimension" if scene.dim == 1 else f"{scene.dim} dimensions"
    if scene.dim > N_SHOWN:
        dimensions += f", drawn along the {N_SHOWN} widest principal axes"
    room = scene.room
    state = (
        f"in memory on {room.device}"
        if room.name == scene.model_name
        else "loaded when a page needs it"
    )
    if not _can_be_found(scene):
        state = "not found below the app's folders; start the app with --model and its folder"
    place.caption(
        "  \n".join(
            session.plain(line)
            for line in (
                f"{scene.n_neurons:,} neurons, {dimensions}",
                n_tokens,
                f"Model {model}: {state}",
            )
            if line
        )
    )
