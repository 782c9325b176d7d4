"""The fields of a contrast: two sets of prompts, and how they are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import streamlit as st

from dashboard.contrast.orders import ContrastOrder, Typed, sets_id
from dashboard.state import session
from dashboard.state.scene import Scene
from dashboard.state.shelf import shelf
from projector.residual.contrast.pairs.registry import DEFAULT_PAIR, PAIRS

PAIR, OWN, SAVED = "pair", "own", "saved"
_SOURCES = {PAIR: "A pair of the project", OWN: "My own prompts", SAVED: "A saved report"}
_SOURCE, _PAIR, _AT = "contrast source", "contrast pair", "contrast at"
_KEEP, _GIVEN = "contrast outliers", "contrast sets given"
_AT_WORDS = {"last": "last token", "mean": "mean of tokens"}
_SIDES = {"positive": "Set A", "negative": "Set B"}
_PLACES = {"positive": (0, 1), "negative": (1, 2)}
_MOST_MB = 8


def choose_source(has_reports: bool) -> str:
    """Choose the source of the sets, or a saved report.

    Args:
        has_reports: whether there are saved reports.
    """
    names = [name for name in _SOURCES if name != SAVED or has_reports]
    return str(
        st.segmented_control(
            "Prompts",
            names,
            format_func=_SOURCES.__getitem__,
            key=_SOURCE,
            required=True,
            on_change=_bind(_SOURCE, "source", names, PAIR),
        )
    )


def show_fields(
    scene: Scene, source: str, *, is_busy: bool, run: Callable[[ContrastOrder], None]
) -> ContrastOrder:
    """Draw the fields of a source and the Run button, and return the order in the fields.

    Args:
        is_busy: whether the button waits for a run in progress.
        run: called with the order when the button is pressed.
    """
    is_causal = scene.projection.facts.model.is_causal
    if source == PAIR:
        _show_pair()
    else:
        _take_sets_of_link()
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
                on_change=_bind(_AT, "at", list(_AT_WORDS), "last"),
                help="The residual stream at the last token of each prompt, or its mean over all "
                "tokens of the prompt.",
            )
        else:
            st.caption("This model is an encoder: each prompt is read as the mean of its tokens.")
        session.bind(_KEEP, session.current().outliers == 1)
        st.checkbox(
            "Keep tokens with outlier norms",
            key=_KEEP,
            on_change=lambda: session.change(outliers=1 if st.session_state[_KEEP] else None),
            help="Some models have a few tokens whose vectors are many times longer than all "
            "others. They are left out of means unless this is ticked.",
        )

        def pressed() -> None:
            order = _order(source, is_causal)
            if order.positive is not None and order.negative is not None:
                _put_sets_into_link(order.positive, order.negative)
            run(order)

        st.button("Run", type="primary", key="run contrast", disabled=is_busy, on_click=pressed)
    return _order(source, is_causal)


def _bind(key: str, name: str, options: Sequence[str], usual: str) -> Callable[[], None]:
    """Give a widget the selection's value before it is drawn; return its ``on_change``.

    Args:
        options: allowed values; another value in a link is reported.
        usual: value if the selection has none.
    """
    chosen = getattr(session.current(), name)
    if chosen is not None and chosen not in options:
        session.note(f"The link's {name} ‘{chosen[:40]}’ doesn't exist: the page uses ‘{usual}’.")
        session.change(**{name: None})
        chosen = None
    session.bind(key, chosen or usual)

    def changed() -> None:
        value = st.session_state[key]
        session.change(**{name: None if value == usual else value})

    return changed


def _show_pair() -> None:
    names = list(PAIRS)
    name = st.selectbox(
        "Pair",
        names,
        key=_PAIR,
        format_func=lambda name: f"{PAIRS[name].positive_name} and {PAIRS[name].negative_name}",
        on_change=_bind(_PAIR, "pair", names, DEFAULT_PAIR),
    )
    holds = PAIRS[str(name)].holds
    st.caption(session.plain(f"{holds[:1].upper()}{holds[1:].rstrip('.')}."))


def _put_sets_into_link(positive: Typed, negative: Typed) -> None:
    """Keep two sets, as long as there is space for them, so that a link can name them."""
    name = sets_id(positive, negative)
    shelf().keep(("sets of prompts", name), lambda: (positive, negative))
    st.session_state[_GIVEN] = name, (positive, negative)
    session.change(sets=name)


def _take_sets_of_link() -> None:
    """Fill the fields once with the sets that a link names."""
    name = session.current().sets
    known, _ = st.session_state.get(_GIVEN, (None, ()))
    if name in (None, known):
        return
    found = shelf().peek(("sets of prompts", name))
    st.session_state[_GIVEN] = name, found or ()
    if found is None:
        session.note("The link's prompts are no longer saved: type them again.")
        return
    for side, typed in zip(_SIDES, found, strict=True):
        session.fill(f"contrast {side}", typed.text)


def _show_set(side: str) -> None:
    words = _SIDES[side]
    st.text_area(
        words,
        key=f"contrast {side}",
        height=150,
        placeholder="One prompt per line, at least ten",
        on_change=session.keep(f"contrast {side}", ""),
    )
    st.file_uploader(
        f"Or a file for {words[:1].lower()}{words[1:]}",
        type=["txt", "jsonl"],
        key=f"contrast {side} file",
        max_upload_size=_MOST_MB,
        help="One prompt per line, or lines of JSON with a text under “prompt” or “text”. A file "
        "replaces the text typed above.",
    )


def _order(source: str, is_causal: bool) -> ContrastOrder:
    """The order in the fields; fields that are not drawn yet have their default."""
    state = st.session_state
    facts: dict[str, Any] = {
        "at": str(state.get(_AT) or "last") if is_causal else "mean",
        "keep_outliers": bool(state.get(_KEEP)),
    }
    if source == PAIR:
        return ContrastOrder(pair=str(state.get(_PAIR) or DEFAULT_PAIR), **facts)
    return ContrastOrder(positive=_typed("positive"), negative=_typed("negative"), **facts)


def _typed(side: str) -> Typed:
    """A set as it was uploaded, typed, or named by the link."""
    state = st.session_state
    file = state.get(f"contrast {side} file")
    if file is not None:
        stem, _, suffix = str(file.name).rpartition(".")
        text = file.getvalue().decode("utf-8", errors="replace")
        return Typed(stem or _SIDES[side], text, is_json=suffix.lower() == "jsonl", is_file=True)
    text = str(state.get(f"contrast {side}") or "")
    _, given = state.get(_GIVEN, (None, ()))
    # The text of a file from a link is in the text field.
    same = [each for each in given[slice(*_PLACES[side])] if each.text == text]
    return same[0] if same else Typed(_SIDES[side], text)
