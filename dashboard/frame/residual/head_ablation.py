"""Ablation of heads, on the pages that select them."""

from __future__ import annotations

import re

import streamlit as st

from dashboard.frame.ablating import show_ablation_of_heads
from dashboard.frame.residual.places import head_name
from dashboard.state import session
from dashboard.state.scene import Scene

_KEY, _OPEN = "heads to ablate", "head ablation open"
_NAME = re.compile(r"L(\d{1,5})\s*H(\d{1,5})(?!\w)", re.ASCII | re.IGNORECASE)


def show_head_ablation(scene: Scene) -> None:
    """Draw the fields, and the model's results without the selected head and further heads."""
    head = session.current().head
    if head is None:
        return
    own = head_name(scene.layer, head)
    part = f"Ablate {own}"
    if st.session_state.get("ablate"):
        # Streamlit draws this part again at every run: it stays open for the head it was used for.
        st.session_state[_OPEN] = part
    is_open = st.session_state.get(_OPEN) == part
    with st.expander(part, icon=":material/content_cut:", expanded=is_open):
        others = st.text_input(
            "Together with",
            key=_KEY,
            placeholder="L1 H3, L4 H0",
            on_change=session.keep(_KEY, ""),
            help="Other heads to ablate at the same time. Leave it empty for none.",
        )
        named = [(int(layer), int(number)) for layer, number in _NAME.findall(others or "")]
        left_over = _NAME.sub("", others or "").strip(" ,;")
        if left_over:
            session.tell(f"'{left_over[:60]}' isn't a head: write for example L1 H3, L4 H0")
            return
        show_ablation_of_heads(scene, sorted({(scene.layer, head), *named}))
