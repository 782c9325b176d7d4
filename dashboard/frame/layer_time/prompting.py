"""The prompts whose hidden states are looked at: the Prompt page's own, by the same rules."""

from __future__ import annotations

import streamlit as st

from dashboard.frame import asking
from dashboard.prompts import Tokens
from dashboard.state import session
from dashboard.state.scene import Scene


def choose_prompts(scene: Scene) -> tuple[Tokens, ...]:
    """Draw the fields; the tokens of the prompts that are selected: none, one or two.

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
        # What is wrong with the prompt that was typed is said: nobody is asked to type one.
        if can_run:
            st.info("Type a prompt and press Run.", icon=":material/keyboard:")
        return ()
    given = [chosen.prompt] if chosen.other is None else [chosen.prompt, chosen.other]
    return tuple(asking.run_selected(scene, each, asking.read) for each in given)
