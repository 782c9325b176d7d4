"""The lens of a prompt: run it unless a page has run it, and draw it as a table to click."""

from __future__ import annotations

import streamlit as st

from dashboard.components.cell_grid import cell_grid
from dashboard.drawing.text import tint_scale
from dashboard.frame.residual.prompting import in_one_line
from dashboard.frame.residual.stopping import Begin, unless_stopped
from dashboard.prompts import Tokens
from dashboard.residual.lens_cells import (
    COLORINGS,
    LensTable,
    baseline_words,
    lens_grid,
    most_at_once,
    outlier_words,
    read_lens,
    row_of,
)
from dashboard.state import session
from dashboard.state.loading import fact_of, kept
from dashboard.state.scene import Scene
from projector.errors import UserError

_COLOR, _FIRST = "lens color", "lens first token"


def why_no_lens(scene: Scene) -> str | None:
    """Why this model has no lens, in one line; None if it has one."""
    if not scene.projection.facts.model.is_causal:
        return (
            "This model is an encoder: it has no head that predicts the next token, so its stream "
            "can't be read by one."
        )

    def make() -> str | None:
        with scene.model() as guest:
            try:
                _ = guest.subject.readout
            except UserError as error:
                return str(error)
        return None

    return fact_of(("no lens", scene.model_name, scene.sha256), make)


def show_lens(scene: Scene, tokens: Tokens, position: int) -> LensTable | None:
    """Draw the table and return it; None if the user stopped it."""
    limit = _limit(scene)
    color, first = _choose(len(tokens.pieces), limit, position)
    end = min(first + limit, len(tokens.pieces))
    table = _table(scene, tokens, first, end)
    if table is None:
        return None
    chosen = COLORINGS[color]
    st.html(tint_scale(chosen.words, chosen.low(table), chosen.high(table)))
    texts = in_one_line(tokens.pieces[first:end])
    if color == "kl" and (told := baseline_words(table)):
        st.caption(told)
    _check(table)
    reading = session.current().reading

    def pick(row: int, column: int) -> None:
        session.change(token=first + column, reading=row_of(table, row))

    cell_grid(lens_grid(table, texts, color, reading, position), key="lens grid", on_pick=pick)
    n_tokens = len(tokens.pieces)
    st.caption(
        f"{_shown(first, end, n_tokens)} Each cell shows the next token that the model's own "
        "final norm and head predict from the stream there; the last layer is at the top. Click "
        "a cell, or press Enter on it, to see which parts of the model produce that reading. "
        "Arrow keys move between cells."
    )
    if told := outlier_words(table, in_one_line(tokens.pieces)):
        st.caption(session.plain(told))
    if table.missing is not None:
        st.caption(session.plain(f"Nothing is read after attention: {table.missing}."))
    return table


def _check(table: LensTable) -> None:
    """Report parts of a link that this model doesn't have, and drop them."""
    chosen, n_readings = session.current(), len(table.readings)
    if chosen.reading is not None and chosen.reading >= n_readings:
        session.note(
            f"The table has no row {chosen.reading:,}: its rows are 0 to {n_readings - 1:,}. "
            "The page attributes the model's own prediction."
        )
        session.change(reading=None)
    for name, usual in (
        ("target", "the top token's logit is attributed"),
        ("against", "no logit is subtracted"),
    ):
        token: int | None = getattr(chosen, name)
        if token is not None and token >= table.n_vocabulary:
            session.note(
                f"The model has no token #{token}: its tokens are #0 to "
                f"#{table.n_vocabulary - 1}, and {usual}."
            )
            session.change(**{name: None})


def _shown(first: int, end: int, n_tokens: int) -> str:
    if end - first == n_tokens:
        return f"All {n_tokens:,} tokens; the table scrolls."
    return f"Tokens {first + 1:,} to {end:,} of {n_tokens:,}; the table scrolls."


def _limit(scene: Scene) -> int:
    """The number of tokens that are read at once."""

    def make() -> int:
        with scene.model() as guest:
            return most_at_once(guest.subject)

    return fact_of(("lens limit", scene.model_name, scene.sha256), make)


def _choose(n_tokens: int, limit: int, position: int) -> tuple[str, int]:
    """The colouring of the cells, and the first shown token."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        color = st.segmented_control(
            "Colour by",
            list(COLORINGS),
            format_func=lambda name: COLORINGS[name].words,
            key=_COLOR,
            required=True,
            on_change=session.keep(_COLOR, "probability"),
            help="\n".join(f"- {each.words}: {each.help}" for each in COLORINGS.values()),
        )
        if n_tokens <= limit:
            return str(color), 0
        starts = list(range(0, n_tokens, limit))
        # The part with the chosen token, until the user asks for another part.
        own = position // limit * limit
        session.bind(_FIRST, own)

        def change() -> None:
            session.change(token=st.session_state[_FIRST], reading=None)

        first = st.selectbox(
            "Tokens",
            starts,
            format_func=lambda start: f"{start + 1:,} to {min(start + limit, n_tokens):,}",
            key=_FIRST,
            on_change=change,
            width=180,
            help=f"Reading one token takes a product with the whole vocabulary at each layer, so "
            f"at most {limit:,} tokens are read at once.",
        )
    return str(color), int(first)


def _table(scene: Scene, tokens: Tokens, first: int, end: int) -> LensTable | None:
    key = ("lens", tokens.prompt.id, scene.model_name, scene.sha256, first, end)

    def find(begin: Begin) -> LensTable:
        def make() -> LensTable:
            with begin() as work, scene.model() as guest:
                return read_lens(guest.subject, tokens.ids, first, end, progress=work)

        return kept(key, make)

    return unless_stopped("lens", key, "Read the stream", find)
