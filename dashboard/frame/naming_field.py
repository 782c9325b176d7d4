"""The field for the user's own name of a neuron or a pole."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from dashboard.drawing.text import page_text
from dashboard.state import session
from projector.errors import UserError

_PROBLEM = "name problem"


def show_name_field(key: str, known: str, write: Callable[[str], object]) -> None:
    """Draw the field; a typed name is saved at once, and an error is shown below the field.

    Args:
        known: the saved name; empty for none.
        write: keeps a name, and may raise a UserError.
    """
    state = st.session_state
    found_key, problem = state.pop(_PROBLEM, ("", ""))
    problem = problem if found_key == key else ""
    # A name that can't be saved stays in the field, so that the user can correct it.
    if not problem:
        session.bind(key, known)

    def changed() -> None:
        try:
            write(state[key])
        except UserError as error:
            state[_PROBLEM] = (key, page_text(error))

    st.text_input(
        "Your name for it",
        key=key,
        placeholder="Your name for it",
        label_visibility="collapsed",
        on_change=changed,
        help="Every page shows this name in place of the computed label. It is saved with the "
        "projection. Empty the field to remove it.",
    )
    if problem:
        session.tell(problem)
