"""The prompts of the Layer-time page, which are those of the Prompt page."""

from __future__ import annotations

import streamlit as st

from dashboard.frame import asking
from dashboard.prompts import Tokens
from dashboard.state import session
from dashboard.state.scene import Scene


def choose_prompts(scene: Scene) -> tuple[Tokens, ...]:
    """Draw the fields, and return the tokens of the selected prompts: none, one or two.

    Raises:
        UserError: see :func:`dashboard.frame.asking.run_selected`.
    """
    asking.show_fields(n_new=0)
    asked = asking.asked()
    can_run = True
    if asked is not None:
        can_run = False
        with session.problems():
            asking.run_asked(scene, asked, asking.read)
            can_run = True
    chosen = session.current()
    if chosen.prompt is None:
        # If the typed prompt has an error, the page shows that instead of asking for a prompt.
        if can_run:
            st.info("Type a prompt and press Run.", icon=":material/keyboard:")
        return ()
    given = [chosen.prompt] if chosen.other is None else [chosen.prompt, chosen.other]
    return tuple(asking.run_selected(scene, each, asking.read) for each in given)
