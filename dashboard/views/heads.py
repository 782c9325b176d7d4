"""All attention heads: what kind each is, what it attends to, and what it moves."""

from __future__ import annotations

import streamlit as st

from dashboard.frame.residual.head_ablation import show_head_ablation
from dashboard.frame.residual.head_grid import show_heads
from dashboard.frame.residual.head_pairs import show_pairs
from dashboard.frame.residual.patterns import show_pattern
from dashboard.frame.residual.places import head_name
from dashboard.frame.residual.prompting import choose_prompt, position_of
from dashboard.residual.head_table import HeadTable
from dashboard.state import session
from dashboard.state.scene import Scene

TITLE, ICON, PATH = "Heads", ":material/account_tree:", "heads"


def show(scene: Scene) -> None:
    """Draw the page."""
    st.title("What attention heads do")
    with session.problems():
        table = show_heads(scene)
        _check_head(scene, table)
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


def _check_head(scene: Scene, table: HeadTable | None) -> None:
    """Say where a link's head is not there, and let go of it."""
    head = session.current().head
    if table is not None and head is not None and table.row(scene.layer, head) is None:
        session.note(f"Layer {scene.layer} has no head {head:,}: no head is selected.")
        session.change(head=None)
