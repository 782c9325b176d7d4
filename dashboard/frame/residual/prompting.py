"""The prompt of the residual stream's pages, which is that of the Prompt page."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from dashboard.frame import asking
from dashboard.prompts import Piece, Tokens
from dashboard.state import session
from dashboard.state.scene import Scene
from projector.naming.words import compact


def choose_prompt(scene: Scene, *, must: bool = True) -> Tokens | None:
    """Draw the fields, and return the tokens of the selected prompt; None without a prompt.

    Args:
        must: whether the page needs a prompt, and asks for one.

    Raises:
        UserError: see :func:`dashboard.frame.asking.run_selected`.
    """
    asking.show_fields(alone=True)
    asked = asking.asked()
    can_run = True
    if asked is not None:
        can_run = False
        with session.problems():
            asking.run_asked(scene, asked, asking.read)
            can_run = True
    prompt = session.current().prompt
    if prompt is None:
        # If the typed prompt has an error, the page shows that instead of asking for a prompt.
        if can_run and must:
            st.info("Type a prompt and press Run.", icon=":material/keyboard:")
        return None
    return asking.run_selected(scene, prompt, asking.read)


def position_of(tokens: Tokens) -> int:
    """The chosen token, from 0; by default the prompt's last token."""
    chosen, usual = session.current().token, tokens.n_prompt - 1
    if chosen is not None and chosen >= len(tokens.pieces):
        session.note(f"The prompt has no token {chosen + 1:,}: token {usual + 1:,} is shown.")
        session.change(token=None)
        return usual
    return usual if chosen is None else chosen


def in_one_line(pieces: Sequence[Piece]) -> list[str]:
    """Texts of tokens, with signs for blanks; "∅" for none."""
    # A piece has a line break after its sign for one.
    return [compact(piece.text.replace("\n", "").replace("\t", "")) for piece in pieces]
