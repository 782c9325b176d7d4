"""Change of basis: pictures of a matrix, a ReLU, attention and the skip connection."""

from __future__ import annotations

import streamlit as st

from dashboard.frame.basis.keeping import show_activations
from dashboard.frame.basis.matrix import show_matrix
from dashboard.frame.basis.mixing import show_attention
from dashboard.frame.basis.summing import show_skip
from dashboard.state import session
from dashboard.state.scene import Scene

TITLE, ICON, PATH = "Change of basis", ":material/transform:", "basis"
_PART = "basis part"
# By the name in a link: the title, and the function that draws it.
_PARTS = {
    "matrix": ("A matrix", show_matrix),
    "relu": ("What a ReLU keeps", show_activations),
    "attention": ("Attention", show_attention),
    "skip": ("Skip connection", show_skip),
}
_FIRST = "matrix"


def show(scene: Scene) -> None:
    """Draw the page."""
    st.title("What a matrix does to the space")
    chosen = session.current().part
    if chosen is not None and chosen not in _PARTS:
        session.note(f"This page has no part '{chosen[:80]}': '{_PARTS[_FIRST][0]}' is shown.")
        session.change(part=None)
        chosen = None
    session.bind(_PART, chosen or _FIRST)
    part = st.segmented_control(
        "Part",
        list(_PARTS),
        format_func=lambda each: _PARTS[each][0],
        key=_PART,
        required=True,
        on_change=_choose,
        label_visibility="collapsed",
    )
    with session.problems():
        _PARTS[str(part)][1](scene)


def _choose() -> None:
    part = st.session_state[_PART]
    session.change(part=None if part == _FIRST else part)
