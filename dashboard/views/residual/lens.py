"""How a prediction forms over the layers, and which parts of the model contribute to it."""

from __future__ import annotations

import streamlit as st

from dashboard.frame.residual.attributing import show_attribution
from dashboard.frame.residual.head_ablation import show_head_ablation
from dashboard.frame.residual.lensing import show_lens, why_no_lens
from dashboard.frame.residual.places import check_head, show_chosen_part
from dashboard.frame.residual.prompting import choose_prompt, position_of
from dashboard.state import session
from dashboard.state.scene import Scene

TITLE, ICON, PATH = "Lens", ":material/stacks:", "lens"


def show(scene: Scene) -> None:
    """Draw the page."""
    st.title("How a prediction forms")
    with session.problems():
        tokens = choose_prompt(scene)
        # For a causal model, ask the model whether its head can be read.
        is_asked = tokens is not None or not scene.projection.facts.model.is_causal
        why = why_no_lens(scene) if is_asked else None
        if why is not None:
            st.info(session.plain(why), icon=":material/info:")
        if tokens is None or why is not None:
            return
        position = position_of(tokens)
        check_head(scene)
        table = show_lens(scene, tokens, position)
        if table is None:
            return
        with session.problems():
            show_attribution(scene, tokens, position, table)
        selected = show_chosen_part(scene)
        if "head" in selected:
            show_head_ablation(scene)
