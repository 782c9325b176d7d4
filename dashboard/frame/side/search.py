"""The search field: find neurons and poles of all layers by a text, or a neuron by its name."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import streamlit as st

from dashboard.drawing.text import neuron_name, page_text
from dashboard.state import session
from dashboard.state.naming import found_at
from dashboard.state.selection import parse_neuron
from projector.errors import UserError
from projector.naming.search import Result
from projector.projection.projection import Projection

_FIELD, _TO, _PLACE = "search", "found neuron", "place of results"
_N_POLES, _N_SHOWN, _MOST_SHOWN = 3, 8, 40
_HELP = (
    "Type a word, such as `self`, to list the neurons and poles of all layers that fire on it. "
    "With a space before it, only the token with that space counts. `L3 N345` selects a neuron; "
    "`345` selects one in this layer."
)


def ask_search(projection: Projection) -> None:
    """Draw the field and a place for its results; select a neuron that is named in it."""
    text = st.text_input(
        "Search",
        key=_FIELD,
        placeholder="self, or L3 N345",
        help=_HELP,
        on_change=session.keep(_FIELD, ""),
    )
    st.session_state[_PLACE] = st.container()
    if not text.strip():
        st.session_state.pop(_TO, None)
        return
    with suppress(UserError):
        found = _neuron_of(text, projection)
        if found is not None:
            _select(text, *found)


def show_found(folder: Path, projection: Projection) -> None:
    """Show the results, after the page's own place is known, so that searches don't delay it."""
    text = st.session_state.get(_FIELD) or ""
    if not text.strip():
        return
    with st.session_state[_PLACE]:
        try:
            found = _neuron_of(text, projection)
            if found is None:
                _show_results(folder, projection, text)
                return
            layer, site, neuron = found
            name = f"{neuron_name(layer, site)} N{neuron}"
            session.show_link(
                "neuron", f"Open {session.plain(name)}", layer=layer, site=site, neuron=neuron
            )
        except UserError as error:
            st.caption(session.plain(_sentence(page_text(error))))


def _neuron_of(text: str, projection: Projection) -> tuple[int, str, int] | None:
    """Layer, site and number of a neuron that a text names; None for other texts.

    Raises:
        UserError: if the neuron doesn't exist.
    """
    try:
        # With a space before it, a number is a token.
        layer, neuron = parse_neuron(text if text[:1] != " " else "")
    except UserError:
        return None
    chosen = session.current()
    sites = [site for site in projection.sites if any(s == site for _, s in projection.maps)]
    site = chosen.site if chosen.site in sites else sites[0]
    layers = [each for each, s in projection.maps if s == site]
    if layer is None:
        layer = chosen.layer if chosen.layer in layers else layers[0]
    if layer not in layers:
        raise UserError(f"there is no layer {layer} here: give {layers[0]} to {layers[-1]}")
    n = projection.figures(layer, site).n_neurons
    if neuron >= n:
        raise UserError(f"layer {layer} has no neuron {neuron:,}: give 0 to {n - 1:,}")
    return layer, site, neuron


def _select(text: str, layer: int, site: str, neuron: int) -> None:
    """Select the neuron that was searched for, once; later selections replace it."""
    if st.session_state.get(_TO) != text:
        st.session_state[_TO] = text
        session.change(layer=layer, site=site)
        session.change(neuron=neuron)


def _show_results(folder: Path, projection: Projection, text: str) -> None:
    if not projection.has_examples:
        st.caption(
            "This projection keeps no examples of what its neurons fire on, so you can't search "
            "it by text. Make it again with `projector fit`, which keeps them."
        )
        return
    found = found_at(folder, text)
    if not found.results:
        st.caption(session.plain(_sentence(found.message or f"nothing fires on '{text[:40]}'")))
        return
    is_all = bool(st.session_state.get("all results"))
    # Single neurons are many and stronger than groups, so the best poles would never be seen.
    poles = [each for each in found.results if each.pole is not None][:_N_POLES]
    ordered = [*poles, *(each for each in found.results if each not in poles)]
    shown = ordered[: _MOST_SHOWN if is_all else _N_SHOWN]
    with st.container(gap="xxsmall"):
        for each in shown:
            _show_result(each)
        st.caption("“10 of 10” means that all ten of its strongest examples are on this text.")
    if len(found.results) > _N_SHOWN:
        n = min(len(found.results), _MOST_SHOWN)
        st.toggle(f"Show {n} of {len(found.results):,} results", key="all results")


def _show_result(found: Result) -> None:
    where = neuron_name(found.layer, found.site)
    name = f"{where} N{found.neuron}" if found.pole is None else f"{where} pole {found.pole}"
    fires = "" if not found.n_examples else f" · {found.n_agreeing} of {found.n_examples}"
    changes: dict[str, Any] = {
        "neuron": found.neuron,
        "pole": found.pole,
        "marked": (),
        "isolate": None,
    }
    if found.pole is not None:
        # Its number belongs to the poles with the usual settings.
        changes["grouping"] = None
    session.show_link(
        "neuron" if found.pole is None else "poles",
        f"{session.plain(name)} · **{session.plain(found.label or text_of(found))}**{fires}",
        layer=found.layer,
        site=found.site,
        **changes,
    )


def text_of(found: Result) -> str:
    """The text for a missing label."""
    return "no label" if found.pole is None else f"pole {found.pole}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
