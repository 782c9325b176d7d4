"""The skip connection as a sum: the stream, what attention adds to it, and both together."""

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
from dashboard.frame.residual.prompting import choose_prompt, in_one_line, position_of
from dashboard.prompts import Tokens
from dashboard.state import session
from dashboard.state.scene import Scene
from projector.figures.basis.page import plane_data
from projector.figures.basis.words import sum_words
from projector.residual.basis.records import SkipView
from projector.residual.basis.skip import view_skip


def show_skip(scene: Scene) -> None:
    """The part of the page on the skip connection."""
    st.caption(
        "Attention does not replace the stream x: its output, which lies in the column space of "
        "W_O, is added to x. When one of three vectors is the sum of the other two, all three lie "
        "in one plane, so this picture loses nothing."
    )
    tokens = choose_prompt(scene)
    if tokens is None:
        return
    position = position_of(tokens)
    fact = maps_of(scene)["W_V"]
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        head = None
        if fact.reason is None and fact.n_heads:
            head = choose_head_of(scene, fact.n_heads, "all of attention")
        choose_token(tokens, position)
    view = _view(scene, tokens, position, head)
    if view is None:
        return
    (text,) = in_one_line(tokens.pieces[position : position + 1])
    st.subheader(session.plain(f"Token {position + 1} ‘{text}’ in layer {scene.layer}"))
    plane(plane_data(view), key="plane of the skip")
    st.caption(sum_words(view))
    offer_page(view, f"skip-layer-{scene.layer}-token-{position + 1}")


def _view(scene: Scene, tokens: Tokens, position: int, head: int | None) -> SkipView | None:
    return view_of(
        scene,
        "skip",
        (tokens.prompt.id, position, head),
        "Run the prompt",
        lambda subject: view_skip(subject, tokens.ids, scene.layer, position, head=head),
    )
