"""A prompt as text in which each token has a colour and can be clicked."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import streamlit as st

from dashboard.components.registering import component
from dashboard.drawing.grids import Cell


def token_text(
    tokens: Sequence[Cell], selected: int, *, key: str, on_pick: Callable[[int], None]
) -> None:
    """Draw the text. Arrow keys move from token to token, Enter picks one.

    Args:
        tokens: text, background and text under the pointer of each token.
        selected: the token with a frame.
        on_pick: called with the number of the picked token, before the page runs again.
    """

    def picked() -> None:
        number = st.session_state[key].get("picked")
        if number is not None and 0 <= int(number) < len(tokens):
            on_pick(int(number))

    data = {
        "tokens": [[each.text, each.fill, each.tip] for each in tokens],
        "selected": selected,
    }
    component("token_text")(key=key, data=json.dumps(data).encode(), on_picked_change=picked)
