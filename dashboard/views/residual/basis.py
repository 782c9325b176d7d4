"""What a matrix does to the space: a matrix, a ReLU, attention and the skip connection, drawn."""

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
_PARTS = {
    "A matrix": show_matrix,
    "What a ReLU keeps": show_activations,
    "Attention": show_attention,
    "Skip connection": show_skip,
}


def show(scene: Scene) -> None:
    """Draw the page."""
    st.title("What a matrix does to the space")
    first = next(iter(_PARTS))
    part = st.segmented_control(
        "Part",
        list(_PARTS),
        key=_PART,
        required=True,
        on_change=session.keep(_PART, first),
        label_visibility="collapsed",
    )
    with session.problems():
        _PARTS[str(part)](scene)
