"""A prompt as running text, each token of which has a colour and can be clicked."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import streamlit as st

from dashboard.drawing.grids import Cell

_HERE = Path(__file__).parent


def token_text(
    tokens: Sequence[Cell], selected: int, *, key: str, on_pick: Callable[[int], None]
) -> None:
    """Draw the text. Arrow keys move from token to token, Enter picks one.

    Args:
        tokens: each one's text, background and what is shown when it is pointed at.
        selected: the token that has a frame.
        on_pick: called with the number of the token that was picked, before the page runs again.
    """

    def picked() -> None:
        number = st.session_state[key].get("picked")
        if number is not None and 0 <= int(number) < len(tokens):
            on_pick(int(number))

    data = {
        "tokens": [[each.text, each.fill, each.tip] for each in tokens],
        "selected": selected,
    }
    _component()(key=key, data=json.dumps(data).encode(), on_picked_change=picked)


@cache
def _component() -> Any:
    # Registered once: a second one of the same name would take the first one's place.
    return st.components.v2.component(
        "transformer_projector_token_text",
        html='<div class="token-text"></div>',
        css=(_HERE / "token_text.css").read_text(encoding="utf-8"),
        js=(_HERE / "token_text.js").read_text(encoding="utf-8"),
    )
