"""The fields of a contrast: which two sets of prompts, and how they are read."""

from __future__ import annotations

from typing import Any

import streamlit as st

from dashboard.contrast.orders import ContrastOrder, Typed
from dashboard.state import session
from dashboard.state.scene import Scene
from projector.residual.contrast.pairs.registry import DEFAULT_PAIR, PAIRS

PAIR, OWN, SAVED = "pair", "own", "saved"
_SOURCES = {PAIR: "A pair of the project", OWN: "My own prompts", SAVED: "A saved report"}
_SOURCE, _PAIR, _AT = "contrast source", "contrast pair", "contrast at"
_KEEP, _ASKED = "contrast outliers", "asked contrast"
_AT_WORDS = {"last": "last token", "mean": "mean of tokens"}
_SIDES = {"positive": "Set A", "negative": "Set B"}
_MOST_MB = 8


def choose_source(has_reports: bool) -> str:
    """Where the sets are from, or that a saved report is shown.

    Args:
        has_reports: whether there is any.
    """
    names = [name for name in _SOURCES if name != SAVED or has_reports]
    if st.session_state.get(_SOURCE) not in (None, *names):
        session.fill(_SOURCE, PAIR)
    return str(
        st.segmented_control(
            "Prompts",
            names,
            format_func=_SOURCES.__getitem__,
            key=_SOURCE,
            required=True,
            on_change=session.keep(_SOURCE, PAIR),
        )
    )


def show_fields(scene: Scene, source: str) -> None:
    """Draw the fields of a source, and the button that runs what they hold."""
    is_causal = scene.projection.facts.model.is_causal
    if source == PAIR:
        _show_pair()
    else:
        left, right = st.columns(2)
        with left:
            _show_set("positive")
        with right:
            _show_set("negative")
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        if is_causal:
            st.segmented_control(
                "Read each prompt at",
                list(_AT_WORDS),
                format_func=_AT_WORDS.__getitem__,
                key=_AT,
                required=True,
                on_change=session.keep(_AT, "last"),
                help="The residual stream at the last token of each prompt, or its mean over all "
                "tokens of the prompt.",
            )
        else:
            st.caption("This model is an encoder: each prompt is read as the mean of its tokens.")
        st.checkbox(
            "Keep tokens with outlier norms",
            key=_KEEP,
            on_change=session.keep(_KEEP, False),
            help="Some models have a few tokens whose vectors are many times longer than all "
            "others. They are left out of means unless this is ticked.",
        )
        st.button(
            "Run",
            type="primary",
            key="run contrast",
            on_click=lambda: st.session_state.update({_ASKED: _order(source, is_causal)}),
        )


def _show_pair() -> None:
    names = list(PAIRS)
    st.selectbox(
        "Pair",
        names,
        key=_PAIR,
        format_func=lambda name: f"{PAIRS[name].positive_name} and {PAIRS[name].negative_name}",
        on_change=session.keep(_PAIR, DEFAULT_PAIR),
    )
    holds = PAIRS[st.session_state[_PAIR]].holds
    st.caption(session.plain(f"{holds[:1].upper()}{holds[1:].rstrip('.')}."))


def _show_set(side: str) -> None:
    words = _SIDES[side]
    st.text_area(
        words,
        key=f"contrast {side}",
        height=150,
        placeholder="One prompt a line, ten or more",
        on_change=session.keep(f"contrast {side}", ""),
    )
    st.file_uploader(
        f"Or a file for {words[:1].lower()}{words[1:]}",
        type=["txt", "jsonl"],
        key=f"contrast {side} file",
        max_upload_size=_MOST_MB,
        help="One prompt a line, or lines of JSON with a text under “prompt” or “text”. A file is "
        "read in place of what is typed above it.",
    )


def asked() -> ContrastOrder | None:
    """What Run was pressed for and has not run yet."""
    found = st.session_state.get(_ASKED)
    return found if isinstance(found, ContrastOrder) else None


def drop() -> None:
    """It is not to be run any more: it has run, can't be, or the user stopped it."""
    st.session_state.pop(_ASKED, None)


def _order(source: str, is_causal: bool) -> ContrastOrder:
    state = st.session_state
    facts: dict[str, Any] = {
        "at": str(state.get(_AT) or "last") if is_causal else "mean",
        "keep_outliers": bool(state.get(_KEEP)),
    }
    if source == PAIR:
        return ContrastOrder(pair=str(state.get(_PAIR) or DEFAULT_PAIR), **facts)
    return ContrastOrder(positive=_typed("positive"), negative=_typed("negative"), **facts)


def _typed(side: str) -> Typed:
    """A set as it was uploaded, or typed."""
    state = st.session_state
    file = state.get(f"contrast {side} file")
    if file is None:
        return Typed(_SIDES[side], str(state.get(f"contrast {side}") or ""))
    stem, _, suffix = str(file.name).rpartition(".")
    text = file.getvalue().decode("utf-8", errors="replace")
    return Typed(stem or _SIDES[side], text, is_json=suffix.lower() == "jsonl")
