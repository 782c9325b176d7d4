"""Contributions of a model's parts to a logit: fields, bars, and the sum in words."""

from __future__ import annotations

import re
from collections.abc import Callable

import streamlit as st

from dashboard.components.part_bars import part_bars
from dashboard.drawing.text import shares_list
from dashboard.frame.residual.places import can_choose_head, can_choose_neuron, choose_part, is_part
from dashboard.frame.residual.prompting import in_one_line
from dashboard.frame.residual.stopping import Begin, unless_stopped
from dashboard.prompts import Tokens
from dashboard.residual.lens_cells import LensTable, reading_words
from dashboard.residual.logit_bars import (
    ERRORS_HELP,
    PartBar,
    attributed_words,
    control_words,
    part_bars_of,
    sum_words,
)
from dashboard.state import session
from dashboard.state.loading import fact_of, kept
from dashboard.state.scene import Scene
from projector.naming.words import compact
from projector.residual.attribution import attribute
from projector.residual.logits.records import AttributedPart, Attribution
from projector.residual.tokens import find_token

_TARGET, _AGAINST, _TYPED = "lens target", "lens against", "lens typed token"
_TOP, _CELL_TOP, _NONE = "the model's top token", "the cell's top token", "no other token"
# The prefix of a token in the field's list, also after the list has changed.
_BY_ID = re.compile(r"  \(#(\d{1,9})\)$", re.ASCII)
_N_NEURONS = 20


def show_attribution(scene: Scene, tokens: Tokens, position: int, table: LensTable) -> None:
    """Attribute a logit after a token: the model's own, or the lens's at the chosen cell."""
    (text,) = in_one_line(tokens.pieces[position : position + 1])
    st.subheader(
        session.plain(f"After token {position + 1} ‘{text}’"),
        help="How much each part of the model adds to the logit of a token, with the final norm's "
        "scale held fixed (direct logit attribution). For a cell below the top row, this is "
        "the logit that the lens reads there, and the parts are those that have written to "
        "the stream by then.",
    )
    _take_typed(scene)
    until = _until(position, table)
    _show_fields(scene, position, table, until)
    found = _attribution(scene, tokens, position, until)
    if found is None:
        return
    left, right = st.columns([3, 2], gap="large")
    with left:
        st.markdown(f"**What adds to {session.plain(attributed_words(found))}**")
        _draw(scene, found.parts, "parts")
        if until is not None:
            _show_reading(position, table)
    with right:
        if found.neurons:
            st.markdown(
                "**MLP neurons**", help="These bars are shares of the MLP bars on the left."
            )
            _draw(scene, found.neurons, "neurons")
        if found.neurons_left_out:
            st.caption(session.plain(f"Some neurons are missing: {found.neurons_left_out}."))
    told = f"{control_words(found)} Click a head or a neuron to select it."
    st.caption(session.plain(told.strip()))
    st.caption(session.plain(sum_words(found)), help=ERRORS_HELP)


def _until(position: int, table: LensTable) -> tuple[int, str] | None:
    """Layer and stream of the chosen cell; None for the model's own logit."""
    reading = session.current().reading
    if reading is None or reading == len(table.readings) - 1 or not _has(table, position):
        return None
    return table.readings[reading]


def _show_fields(
    scene: Scene, position: int, table: LensTable, until: tuple[int, str] | None
) -> None:
    """The token whose logit is attributed, and a token whose logit is subtracted."""
    chosen, state = session.current(), st.session_state
    likely = table.top(len(table.readings) - 1, position) if _has(table, position) else []
    if chosen.reading is not None and _has(table, position):
        likely = table.top(chosen.reading, position) + likely
    texts = {i: f"{text}  (#{i})" for i, text, _ in likely}
    names = {value: i for i, value in texts.items()}
    top = _TOP if until is None else _CELL_TOP

    def options(selected: int | None, usual: str) -> tuple[list[str], str]:
        """The items of a list, and the chosen item."""
        if selected is None:
            return [usual, *names], usual
        own = texts.get(selected) or f"{_text_of(scene, selected)}  (#{selected})"
        return list(dict.fromkeys([usual, *names, own])), own

    def change(key: str, field: str, usual: str) -> Callable[[], None]:
        def take() -> None:
            text = state[key]
            if text is None or text in (usual, _TOP, _CELL_TOP):
                session.change(**{field: None})
            elif text in names:
                session.change(**{field: names[text]})
            elif by_id := _BY_ID.search(text):
                session.change(**{field: int(by_id[1])})
            else:
                # The run asks the model for it, because it may have to wait for the model.
                state[_TYPED] = (field, text)

        return take

    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        for key, field, label, usual in (
            (_TARGET, "target", "Token", top),
            (_AGAINST, "against", "Against", _NONE),
        ):
            offered, own = options(getattr(chosen, field), usual)
            session.bind(key, own)
            st.selectbox(
                label,
                offered,
                key=key,
                accept_new_options=True,
                on_change=change(key, field, usual),
                width=260,
                help="Choose a token, or type one. A leading space counts: ` the` and `the` are "
                "different tokens. `#262` is the token with that id."
                if field == "target"
                else "The parts then add up to the difference of the two logits: what favours the "
                "first token over this one.",
            )


def _has(table: LensTable, position: int) -> bool:
    return table.first <= position < table.first + table.n_tokens


def _text_of(scene: Scene, token: int) -> str:
    """The text of a token."""

    def make() -> str:
        with scene.model() as guest:
            return compact(guest.subject.pieces([token]).text(token))

    return fact_of(("token text", scene.model_name, scene.sha256, token), make)


def _take_typed(scene: Scene) -> None:
    """Select the typed token, or show its error."""
    field, text = st.session_state.pop(_TYPED, (None, ""))
    if field is None:
        return
    with session.problems():
        with scene.model() as guest:
            found = find_token(guest.subject, text, setting=field)
        session.change(**{field: found})


def _attribution(
    scene: Scene, tokens: Tokens, position: int, until: tuple[int, str] | None
) -> Attribution | None:
    chosen = session.current()
    key = (
        *("attribution", tokens.prompt.id, scene.model_name, scene.sha256, position),
        *(chosen.target, chosen.against, until),
    )

    def find(begin: Begin) -> Attribution:
        def make() -> Attribution:
            with begin() as work, scene.model() as guest:
                return attribute(
                    guest.subject,
                    tokens.ids,
                    token=chosen.target,
                    against=chosen.against,
                    position=position,
                    n_neurons=_N_NEURONS,
                    until=until,
                    progress=work,
                )

        return kept(key, make)

    return unless_stopped("attribution", key, "Attribute", find)


def _draw(scene: Scene, parts: tuple[AttributedPart, ...], name: str) -> None:
    def can_pick(part: AttributedPart) -> bool:
        if part.layer is None:
            return False
        if part.head is not None:
            return can_choose_head(scene, part.layer)
        return part.neuron is not None and can_choose_neuron(scene, part.layer)

    bars: list[PartBar] = part_bars_of(parts, is_chosen=is_part, can_pick=can_pick)

    def pick(number: int) -> None:
        part = bars[number].part
        if part is not None:
            choose_part(scene, part)

    part_bars([each.bar for each in bars], key=f"bars of {name}", on_pick=pick)


def _show_reading(position: int, table: LensTable) -> None:
    """Show the most probable tokens of the chosen cell."""
    reading = session.current().reading
    assert reading is not None
    words = reading_words(*table.readings[reading])
    st.markdown(f"**Read from {words}**")
    top = table.top(reading, position)
    st.html(shares_list([(text, share) for _, text, share in top]))
