"""The selection of one browser session, synchronized with its URL."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator
from streamlit.navigation.page import StreamlitPage

from dashboard.drawing.text import page_text
from dashboard.state.selection import Selection, parse_grouping
from projector.errors import UserError
from projector.projection.overview import Overview
from pruning.poles.poles import PoleSettings, usual_settings

_SELECTION = "selection"
_WRITTEN, _WROTE_AT = "written params", "wrote params at"
_SENT, _CHANGED = "sent params", "was changed"
_HELD = "held at the end"
_LAG_S = 1.0
_SAID, _NOTED, _NOTE_PLACE, _AGAIN = "said", "noted", "place of notes", "runs again"
_UNREAD = "unreadable parts of the link"
_PAGES, _SHOWN = "pages", "page shown"
# In a link from a page to itself.
_OWN_LINK = "here"
_KEPT, _DRAWN, _DRAWN_BEFORE = "kept fields", "drawn fields", "drawn before"
_ENDED = "ran to its end"
# The page that is being drawn; None while the sidebar is drawn.
_WITHIN = "within page"


def current() -> Selection:
    """The current selection."""
    found = st.session_state.get(_SELECTION)
    return found if isinstance(found, Selection) else Selection()


def change(**changes: Any) -> None:
    """Change the selection; see :meth:`Selection.but`."""
    st.session_state[_SELECTION] = current().but(**changes)
    st.session_state[_CHANGED] = True


def pole_settings(projection: Overview, layer: int, site: str) -> PoleSettings:
    """Settings of the poles on every page: the chosen settings, or the usual ones for the map."""
    grouping = current().grouping
    return parse_grouping(grouping) if grouping else usual_settings(projection, layer, site)


def read_url() -> None:
    """Take the selection from the URL, unless the app wrote that URL.

    This happens at the start, after the user pastes a link, and after a step back. The URL may also
    lag behind: a click may be sent before the URL of the previous click has arrived, or a run may
    end before it writes the URL. Then the last choice counts. A step back comes without a click.
    """
    params = st.query_params.to_dict()
    is_own_link = params.pop(_OWN_LINK, None) is not None
    state = st.session_state
    drawn = state.pop(_DRAWN, frozenset())
    # The output of an interrupted run may never have reached the browser.
    is_whole = state.pop(_ENDED, False)
    state[_DRAWN_BEFORE] = drawn if is_whole else drawn & state.get(_DRAWN_BEFORE, frozenset())
    state[_WITHIN] = None
    was_chosen = state.pop(_CHANGED, False)
    is_early = time.monotonic() - state.get(_WROTE_AT, 0.0) < _LAG_S
    is_old = params == state.get(_SENT) and is_early and _was_touched() and not is_own_link
    state[_SENT] = params
    is_chosen = was_chosen and not is_own_link
    if params and params != state.get(_WRITTEN) and not is_chosen and not is_old:
        state[_SELECTION] = Selection.of_params(params)
        state[_UNREAD] = Selection.unreadable(params)
    if is_own_link:
        # At once, because drawing the page may take long.
        st.query_params.from_dict(params)
        state[_WRITTEN], state[_WROTE_AT] = params, time.monotonic()


def take_unreadable() -> dict[str, str]:
    """Unreadable parts of the link, by name; returned once."""
    found: dict[str, str] = st.session_state.pop(_UNREAD, {})
    return found


def write_url() -> None:
    """Write the selection to the URL, so that the user can copy it."""
    params = current().params()
    if st.query_params.to_dict() != params:
        st.query_params.from_dict(params)
        st.session_state[_WROTE_AT] = time.monotonic()
    st.session_state[_WRITTEN] = params
    st.session_state.pop(_CHANGED, None)
    st.session_state[_ENDED] = True
    st.session_state[_HELD] = _held()


def _was_touched() -> bool:
    """Whether a widget's value differs from the end of the last run, that is, whether there was a
    click.

    Widgets that the last run did not draw are gone, and don't count.
    """
    before, now = st.session_state.get(_HELD, {}), _held()
    return any(now[key] != value for key, value in before.items() if key in now)


def _held() -> dict[str, str]:
    """The values of the widgets."""
    plain = (str, int, float, bool, type(None), list, tuple, dict)
    return {
        str(key): repr(value)
        for key, value in st.session_state.items()
        if isinstance(value, plain) and key not in _OWN
    }


_OWN = frozenset((_HELD, _WROTE_AT, _SENT, _WRITTEN, _CHANGED, _KEPT, _WITHIN, _ENDED))


def keep(key: str, usual: Any, then: Callable[[], object] | None = None) -> Callable[[], None]:
    """Give the widget with key ``key`` its value from before its page was left; call it before
    drawing.

    Streamlit forgets a widget's value when another page is opened. Only changes by the user are
    kept, because a newly drawn field may send a value that it never had.

    Args:
        usual: its first value.
        then: called after each change.

    Returns:
        the widget's ``on_change``.
    """
    state = st.session_state
    kept = state.setdefault(_KEPT, {})
    # A newly drawn field is empty in the browser, also if the server still holds what was typed. An
    # existing field gets no value, because text that is being typed would be lost. The same key on
    # another page is another field to Streamlit, and empty too.
    place = (state.get(_WITHIN), key)
    if key not in state or place not in state.get(_DRAWN_BEFORE, ()):
        state[key] = kept.get(key, usual)
    state[_DRAWN] = state.get(_DRAWN, frozenset()) | {place}

    def changed() -> None:
        kept[key] = state[key]
        if then is not None:
            then()

    return changed


def fill(key: str, value: Any) -> None:
    """Give a value to a widget that :func:`keep` keeps; call it before drawing."""
    st.session_state.setdefault(_KEPT, {})[key] = value
    st.session_state[key] = value


def bind(key: str, value: Any) -> None:
    """Give the widget with key ``key`` the selection's value; call it before drawing."""
    if st.session_state.get(key) != value:
        st.session_state[key] = value


def remember_pages(pages: dict[str, StreamlitPage], shown: StreamlitPage) -> None:
    """Keep the pages of this run by their paths, so that one page can open another."""
    st.session_state[_PAGES] = pages
    path = next(path for path, page in pages.items() if page == shown)
    st.session_state[_SHOWN] = st.session_state[_WITHIN] = path


def show_menu(place: DeltaGenerator) -> Selection:
    """Draw links to all pages, each with the current selection, which is returned."""
    selection = current()
    with place:
        for page in st.session_state[_PAGES].values():
            st.page_link(page, query_params=selection.params(), width="stretch")
    return selection


def go(path: str) -> None:
    """Open another page."""
    st.switch_page(st.session_state[_PAGES][path], query_params=current().params())


def show_link(path: str, label: str, *, help: str | None = None, **changes: Any) -> None:
    """A link to another page with a changed selection; see :meth:`Selection.but`.

    Args:
        label: Markdown; pass text from models and users through :func:`plain` first.
    """
    params = current().but(**changes).params()
    if path == st.session_state[_SHOWN]:
        # The browser changes the address only with the page; for this page we write it ourselves.
        params[_OWN_LINK] = "1"
    st.page_link(st.session_state[_PAGES][path], label=label, help=help, query_params=params)


def say(problem: str) -> None:
    """Show a message that stays when the page runs itself again."""
    st.session_state[_SAID] = problem
    tell(problem)


def note(line: str) -> None:
    """Report a part of a link that can't be shown, and its replacement; stays as with :func:`say`.

    All reports are in one box.
    """
    noted = st.session_state.setdefault(_NOTED, [])
    if line not in noted:
        noted.append(line)
        _show_notes(noted)


def _show_notes(noted: list[str]) -> None:
    place: DeltaGenerator = st.session_state[_NOTE_PLACE]
    place.warning("  \n".join(map(plain, noted)), icon=":material/link_off:")


def say_again() -> None:
    """Show the last run's messages, if it started this run."""
    st.session_state[_NOTE_PLACE] = st.empty()
    problem, noted = st.session_state.pop(_SAID, None), st.session_state.pop(_NOTED, [])
    if st.session_state.pop(_AGAIN, False):
        if problem:
            say(problem)
        st.session_state[_NOTED] = noted
        if noted:
            _show_notes(noted)


def run_again() -> None:
    """Run the page again, with the new results."""
    st.session_state[_AGAIN] = True
    st.session_state.pop(_ENDED, None)
    st.rerun()


def tell(problem: str, icon: str = ":material/error:") -> None:
    """Show an error message as a sentence; on a command line it follows the word error."""
    st.error(plain(problem[:1].upper() + problem[1:]), icon=icon)


@contextmanager
def problems() -> Iterator[None]:
    """Show a UserError as one message, and continue with the page."""
    try:
        yield
    except UserError as error:
        tell(page_text(error))


def plain(text: str) -> str:
    """Escape text so that Markdown and HTML show it unchanged."""
    return "".join(f"\\{c}" if c in _MARKUP else c for c in text)


_MARKUP = frozenset("\\`*_{}[]<>()#+-!|~$:&")
