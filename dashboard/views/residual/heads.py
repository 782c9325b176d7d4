"""All attention heads: their kinds, their patterns, and the tokens that they move."""

from __future__ import annotations

import streamlit as st

from dashboard.frame.residual.head_ablation import show_head_ablation
from dashboard.frame.residual.head_grid import show_heads
from dashboard.frame.residual.head_pairs import show_pairs
from dashboard.frame.residual.patterns import show_pattern
from dashboard.frame.residual.places import check_head, head_name
from dashboard.frame.residual.prompting import choose_prompt, position_of
from dashboard.state import session
from dashboard.state.scene import Scene

TITLE, ICON, PATH = "Heads", ":material/account_tree:", "heads"


def show(scene: Scene) -> None:
    """Draw the page."""
    st.title("What attention heads do")
    is_known = False
    with session.problems():
        table = show_heads(scene)
        check_head(scene, None if table is None else table.n_heads(scene.layer))
        is_known = True
    if not is_known:
        # If the table can't be made, for example without a model, neither can the rest.
        return
    head = session.current().head
    if head is None:
        st.info("Click a head to see what it attends to.", icon=":material/touch_app:")
        return
    name = head_name(scene.layer, head)
    st.subheader(f"{name} on a prompt")
    with session.problems():
        tokens = choose_prompt(scene)
        if tokens is not None:
            show_pattern(scene, tokens, position_of(tokens), head)
    with session.problems():
        show_pairs(scene, head)
    with session.problems():
        show_head_ablation(scene)
