"""Parts of the selection on several pages: the layout, the chosen neuron, and marked neurons."""

from __future__ import annotations

from collections.abc import Container

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from dashboard.components.neuron_map import AXES
from dashboard.drawing.text import neuron_name, number
from dashboard.frame.across.listing import show_strongest
from dashboard.state import session
from dashboard.state.loading import known_poles, moments_at
from dashboard.state.scene import Scene, usual_layout
from projector.layouts.registry import OBJECTIVES
from projector.sites import SITES
from pruning.poles.poles import Poles

# Names of the objectives, in a word or two.
_OBJECTIVES = {"stress": "Distances", "neighbours": "Neighbours", "linear": "Linear order"}


def sites_beside(scene: Scene, known: Container[tuple[int, str]]) -> list[str]:
    """The chosen site and the site next to it, MLP before attention.

    A click on one of two maps leaves both in place.
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


def choose_layout(scene: Scene) -> None:
    """Draw the choice of a layout on pages with a map; nothing if there is only one."""
    names = list(scene.projection.layouts)
    if len(names) < 2:
        return
    session.bind("layout", scene.layout)
    st.segmented_control(
        "Layout",
        names,
        format_func={name: _layout_words(scene, name) for name in names}.__getitem__,
        key="layout",
        on_change=lambda: _change_layout(scene),
        required=True,
        help="How neurons were placed: the objective and the number of dimensions. `projector "
        "layout` adds more layouts.",
    )


def _layout_words(scene: Scene, name: str) -> str:
    """A layout in words, such as ``Neighbours, 2-D``; its name if two would have the same words."""
    words = {
        each: f"{_OBJECTIVES.get(made.settings.objective, made.settings.objective.capitalize())}, "
        f"{made.settings.dim}-D"
        for each, made in scene.projection.layouts.items()
    }
    return words[name] if list(words.values()).count(words[name]) == 1 else name


def _change_layout(scene: Scene) -> None:
    """Change the layout and keep the selection, except for a pole that was found on a map."""
    name = st.session_state["layout"]
    settings = session.pole_settings(scene.projection, scene.layer, scene.site)
    is_of_map = settings.space == "positions"
    session.change(
        layout=None if name == usual_layout(scene.projection) else name,
        pole=None if is_of_map else session.current().pole,
    )


def axes_of(scene: Scene) -> tuple[str, ...] | None:
    """The axes of the shown layout; empty if only distances between neurons have a meaning."""
    record = OBJECTIVES.get(scene.projection.layout(scene.layout).settings.objective)
    return None if record is not None and "distances" in record.lacks else AXES


def show_chosen(scene: Scene, values: NDArray[np.floating] | None = None) -> None:
    """Show the chosen neuron, with a link to its card.

    Args:
        values: (N,) activations that the map shows.
    """
    neuron = session.current().neuron
    if neuron is None:
        return
    facts = [f"**{neuron_name(scene.layer, scene.site)} N{neuron}**"]
    poles = poles_shown(scene, scene.site)
    if poles is not None:
        pole = int(poles.labels[neuron])
        facts.append("in no pole" if pole < 0 else f"in pole {pole}")
    if scene.projection.has_statistics_of(scene.layer, scene.site):
        mean, spread = (each[neuron] for each in moments_at(scene.path, scene.layer, scene.site))
        facts.append(f"mean over the corpus {number(mean)}, std. dev. {number(spread)}")
    if values is not None:
        facts.insert(1, f"activation {number(float(values[neuron]), '+.3g')}")
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(" · ".join(facts), width="content")
        if st.button("Open its card", key="open card", icon=":material/radio_button_checked:"):
            session.go("neuron")
    show_strongest(scene)


def show_marked(scene: Scene) -> None:
    """Show the selected neurons, with a button that clears the selection."""
    chosen = session.current()
    marked = marked_of(scene)
    if not marked:
        return
    first = ", ".join(f"N{j}" for j in marked[:12])
    what = "Selected" if chosen.pole is None else f"Pole {chosen.pole} is selected"
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(
            f"**{what}:** {len(marked):,} neurons, {first}{' …' if len(marked) > 12 else ''}",
            width="content",
        )
        st.button(
            "Clear selection",
            key="clear selection",
            icon=":material/close:",
            on_click=lambda: session.change(pole=None, marked=()),
        )


def marked_of(scene: Scene) -> tuple[int, ...]:
    """The neurons of the chosen map with a ring: those in a box, or those of the chosen pole."""
    chosen, poles = session.current(), poles_shown(scene, scene.site)
    if chosen.marked or poles is None or chosen.pole is None:
        return tuple(j for j in chosen.marked if j < scene.n_neurons)
    return tuple((poles.labels == chosen.pole).nonzero()[:, 0].tolist())


def poles_shown(scene: Scene, site: str) -> Poles | None:
    """Poles of a site of the chosen layer, if some session has found them."""
    return known_poles(
        scene.path,
        scene.layer,
        site,
        scene.layout,
        session.pole_settings(scene.projection, scene.layer, site),
    )
