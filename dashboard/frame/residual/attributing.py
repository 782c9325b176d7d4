"""What each part of a model adds to a logit: its fields, its bars, and the sum in words."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from dashboard.components.part_bars import part_bars
from dashboard.drawing.text import page_text, shares_list
from dashboard.frame.residual.places import can_choose_head, can_choose_neuron, choose_part, is_part
from dashboard.frame.residual.prompting import in_one_line
from dashboard.frame.residual.stopping import Begin, unless_stopped
from dashboard.prompts import Tokens
from dashboard.residual.lens_cells import LensTable, reading_words
from dashboard.residual.logit_bars import PartBar, attributed_words, part_bars_of, sum_words
from dashboard.state import session
from dashboard.state.loading import kept
from dashboard.state.scene import Scene
from projector.corpus.pieces import readable
from projector.errors import UserError
from projector.residual.attribution import attribute
from projector.residual.logits.records import AttributedPart, Attribution
from projector.residual.tokens import find_token

_TARGET, _AGAINST, _PROBLEM = "lens target", "lens against", "lens target problem"
_TOP, _NONE = "the model's top token", "no other token"
_N_NEURONS = 20


def show_attribution(scene: Scene, tokens: Tokens, position: int, table: LensTable) -> None:
    """Attribute what the model says after a token, and draw it."""
    (text,) = in_one_line(tokens.pieces[position : position + 1])
    st.subheader(
        session.plain(f"Behind token {position + 1} ‘{readable(text)}’"),
        help="What each part of the model adds to the logit of a token, with the final norm's "
        "scale held as it is (direct logit attribution).",
    )
    _show_fields(scene, position, table)
    found = _attribution(scene, tokens, position)
    if found is None:
        return
    left, right = st.columns([3, 2], gap="large")
    with left:
        st.markdown(f"**What adds to {session.plain(attributed_words(found))}**")
        _draw(scene, found.parts, "parts")
        _show_reading(position, table)
    with right:
        if found.neurons:
            st.markdown("**MLP neurons**", help="Shares of the MLPs at the left.")
            _draw(scene, found.neurons, "neurons")
        if found.neurons_left_out:
            st.caption(session.plain(f"Without {found.neurons_left_out}."))
    st.caption(session.plain(sum_words(found)) + " A click on a head or a neuron selects it.")


def _show_fields(scene: Scene, position: int, table: LensTable) -> None:
    """The token whose logit is attributed, and one whose logit is taken away from it."""
    chosen, state = session.current(), st.session_state
    likely = table.top(len(table.readings) - 1, position) if _has(table, position) else []
    if chosen.reading is not None and _has(table, position):
        likely += table.top(chosen.reading, position)
    texts = {i: f"{text}  (#{i})" for i, text, _ in likely}
    names = {value: i for i, value in texts.items()}

    def options(selected: int | None, usual: str) -> tuple[list[str], str]:
        """What a list offers, and what is chosen in it."""
        if selected is None:
            return [usual, *names], usual
        own = texts.get(selected, f"#{selected}")
        return list(dict.fromkeys([usual, *names, own])), own

    def change(key: str, field: str, usual: str) -> Callable[[], None]:
        def take() -> None:
            text = state[key]
            if text is None or text == usual:
                session.change(**{field: None})
            elif text in names:
                session.change(**{field: names[text]})
            else:
                _find(scene, text, field)

        return take

    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        for key, field, label, usual in (
            (_TARGET, "target", "Token", _TOP),
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
                help="Choose a token, or type one: ` the` with its space is another token than "
                "`the`; `#262` is the token of that id."
                if field == "target"
                else "The parts then add up to the difference of the two logits: what speaks for "
                "the first token rather than this one.",
            )
    problem = state.pop(_PROBLEM, None)
    if problem:
        session.tell(problem)


def _has(table: LensTable, position: int) -> bool:
    return table.first <= position < table.first + table.n_tokens


def _find(scene: Scene, text: str, field: str) -> None:
    """Select the token that was typed; what is wrong with it is said where the fields are."""
    try:
        with scene.room.use(scene.model_name, scene.sha256) as guest:
            found = find_token(guest.subject, text, setting="token")
    except UserError as error:
        st.session_state[_PROBLEM] = page_text(error)
        return
    session.change(**{field: found})


def _attribution(scene: Scene, tokens: Tokens, position: int) -> Attribution | None:
    chosen = session.current()
    key = (
        *("attribution", tokens.prompt.id, scene.model_name, scene.sha256, position),
        *(chosen.target, chosen.against),
    )

    def find(begin: Begin) -> Attribution:
        def make() -> Attribution:
            with begin(), scene.model() as guest:
                return attribute(
                    guest.subject,
                    tokens.ids,
                    token=chosen.target,
                    against=chosen.against,
                    position=position,
                    n_neurons=_N_NEURONS,
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
    """What the cell that was clicked reads."""
    reading = session.current().reading
    if reading is None or not _has(table, position):
        return
    words = reading_words(*table.readings[reading])
    st.markdown(f"**Read from {words}**")
    top = table.top(reading, position)
    st.html(shares_list([(text, share) for _, text, share in top]))
