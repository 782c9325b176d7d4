"""Pairs of tokens that a head joins by its weights alone: tokens that it moves or attends to."""

from __future__ import annotations

import streamlit as st

from dashboard.drawing.text import joined_list, number
from dashboard.frame.residual.places import head_name
from dashboard.frame.residual.stopping import Begin, unless_stopped
from dashboard.residual.joined import Joined, Pairs, read_pairs, read_tokens
from dashboard.state.loading import kept
from dashboard.state.scene import Scene

_OV_HELP = (
    "Where the head attends to the token at the left, it raises the logits of those at the right "
    "(W_U W_OV, norms folded). Scores are above the mean over all tokens."
)
_QK_HELP = (
    "At the token at the left the head attends most to those at the right (W_QK, norms folded). "
    "Scores are above the mean over all tokens."
)


def show_pairs(scene: Scene, head: int) -> None:
    """Draw the pairs of tokens of a head of the chosen layer."""
    name = head_name(scene.layer, head)
    st.subheader(
        f"{name} by its weights",
        help="Which tokens the head connects when each token is on its own. The head reads the "
        "token's embedding and what earlier MLPs add to it; contributions of attention are "
        "left out.",
    )
    if not scene.projection.facts.model.is_causal:
        st.caption("This model is an encoder: it has no logits that a head could raise.")
        return
    found = _pairs(scene, head)
    if found is None:
        return
    left, right = st.columns(2, gap="large")
    with left:
        st.markdown("**OV: reads → raises**", help=_OV_HELP)
        _show(found.ov)
    with right:
        st.markdown("**QK: at → attends to**", help=_QK_HELP)
        _show(found.qk)
    # Control tokens, which are left out, are few.
    if found.n_tokens < 0.9 * found.n_vocabulary:
        st.caption(
            f"The first {found.n_tokens:,} of {found.n_vocabulary:,} tokens were tried: they are "
            "the most frequent ones, and trying all would take long."
        )


def _pairs(scene: Scene, head: int) -> Joined | None:
    key = ("pairs of a head", scene.model_name, scene.sha256, scene.layer, head)

    of_layer = ("token streams", scene.model_name, scene.sha256, scene.layer)

    def find(begin: Begin) -> Joined:
        def make() -> Joined:
            with begin() as work, scene.model() as guest:
                subject = guest.subject
                # Equal for all heads of a layer, and most of the work.
                streams = kept(of_layer, lambda: read_tokens(subject, scene.layer, work))
                work.advance(0)
                return read_pairs(subject, scene.layer, head, streams)

        return kept(key, make)

    return unless_stopped("pairs", key, "Find its pairs", find)


def _show(pairs: Pairs) -> None:
    if pairs.is_chance:
        st.markdown(
            ":gray[**No more than chance:** the highest score lies within one standard deviation "
            "of what random coordinates give.]"
        )
    rows = [(row.token, row.to) for row in pairs.rows]
    st.html(joined_list(rows, is_faint=pairs.is_chance))
    st.caption(
        f"The highest score is {number(pairs.highest, '.3g')} ({number(pairs.control, '.3g')} with "
        "the head's coordinates rotated at random). The standard deviation over all pairs is "
        f"{number(pairs.spread)}."
    )
