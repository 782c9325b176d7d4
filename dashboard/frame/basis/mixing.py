"""Attention as a change of basis: the tokens' values before and after a head mixes them."""

from __future__ import annotations

import streamlit as st

from dashboard.components.plane import plane
from dashboard.frame.basis.choosing import (
    choose_head_of,
    choose_token,
    maps_of,
    offer_page,
    view_of,
)
from dashboard.frame.residual.places import head_name
from dashboard.frame.residual.prompting import choose_prompt, in_one_line, position_of
from dashboard.prompts import Tokens
from dashboard.state import session
from dashboard.state.scene import Scene
from projector.errors import UserError
from projector.figures.basis.page import plane_data
from projector.figures.basis.words import small
from projector.residual.basis.attention import view_attention
from projector.residual.basis.records import AttentionView


def show_attention(scene: Scene) -> None:
    """The part of the page on attention."""
    st.caption(
        "A head turns each token into a value vector, then replaces it by a combination of the "
        "values of the tokens it attends to. The coefficients are the token's row of the pattern. "
        "Coloured lines lead from the values to the mixture at the chosen token; a thicker line "
        "means a larger coefficient. Thin grey lines lead from each token's value to its own "
        "mixture."
    )
    tokens = choose_prompt(scene)
    if tokens is None:
        return
    fact = maps_of(scene)["W_V"]
    if fact.reason is not None:
        raise UserError(f"the heads of layer {scene.layer} can't be found: {fact.reason}")
    position = position_of(tokens)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        head = choose_head_of(scene, fact.n_heads, None)
        choose_token(tokens, position)
    assert head is not None  # there is no whole
    view = _view(scene, tokens, head)
    if view is None:
        return
    name = head_name(scene.layer, head)
    st.subheader(f"{name} on the prompt")
    shown = plane_data(view, position=position) | {"labels": in_one_line(tokens.pieces)}
    plane(shown, key="plane of attention")
    st.caption(
        "The plane is that of the values' top two directions. Pattern times values differs from "
        f"the head's output by {small(view.closure_error)} of its length in this run."
    )
    with st.container(horizontal=True, vertical_alignment="center"):
        offer_page(view, f"attention-{name.replace(' ', '-')}", position=position)
        if st.button("Open it on Heads", key="basis open head", icon=":material/account_tree:"):
            session.change(head=head)
            session.go("heads")


def _view(scene: Scene, tokens: Tokens, head: int) -> AttentionView | None:
    return view_of(
        scene,
        "attention",
        (tokens.prompt.id, head),
        "Run the prompt",
        lambda subject: view_attention(subject, tokens.ids, scene.layer, head),
    )
