"""The selection of one browser session, kept in step with its URL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator
from streamlit.navigation.page import StreamlitPage

from dashboard.selection import Selection, parse_grouping
from projector.errors import UserError
from pruning.poles import PoleSettings

_SELECTION = "selection"
_WRITTEN = "written params"
_PAGES = "pages"


def current() -> Selection:
    """What is selected."""
    found = st.session_state.get(_SELECTION)
    return found if isinstance(found, Selection) else Selection()


def change(**changes: Any) -> None:
    """Select something else; see :meth:`Selection.but`."""
    st.session_state[_SELECTION] = current().but(**changes)


def pole_settings() -> PoleSettings:
    """Of the poles that every page shows."""
    return parse_grouping(current().grouping)


def read_url() -> None:
    """Take the selection from the URL where it is not the one that was written there.

    That is: at first, after a link was pasted, and when the user went back.
    """
    params = st.query_params.to_dict()
    if params and params != st.session_state.get(_WRITTEN):
        st.session_state[_SELECTION] = Selection.of_params(params)


def write_url() -> None:
    """Put the selection into the URL, so that it can be copied."""
    params = current().params()
    if st.query_params.to_dict() != params:
        st.query_params.from_dict(params)
    st.session_state[_WRITTEN] = params


def bind(key: str, value: Any) -> None:
    """Give a widget of key ``key`` the selection's value, before it is drawn."""
    if st.session_state.get(key) != value:
        st.session_state[key] = value


def remember_pages(pages: dict[str, StreamlitPage]) -> None:
    """Keep the pages of this run by their paths, so that one page can open another."""
    st.session_state[_PAGES] = pages


def show_menu(place: DeltaGenerator) -> Selection:
    """Links to all pages, each with what is selected: returned."""
    selection = current()
    with place.container(gap="xxsmall"):
        for page in st.session_state[_PAGES].values():
            st.page_link(page, query_params=selection.params(), width="stretch")
    return selection


def go(path: str) -> None:
    """Open another page."""
    st.switch_page(st.session_state[_PAGES][path], query_params=current().params())


@contextmanager
def problems() -> Iterator[None]:
    """Show what the user can do something about as one message, and go on with the page."""
    try:
        yield
    except UserError as error:
        st.error(plain(str(error)), icon=":material/error:")


def plain(text: str) -> str:
    """Text that Markdown and HTML leave as it is."""
    return "".join(f"\\{c}" if c in _MARKUP else c for c in text)


_MARKUP = frozenset("\\`*_{}[]<>()#+-!|~$:&")
