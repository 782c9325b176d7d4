"""Fields for the head and the token of the selection, and views that are computed once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import streamlit as st

from dashboard.drawing.text import cut_label
from dashboard.frame.residual.places import can_choose_head, check_head, choose_head
from dashboard.frame.residual.prompting import in_one_line
from dashboard.frame.residual.stopping import Begin, unless_stopped
from dashboard.prompts import Tokens
from dashboard.state import session
from dashboard.state.loading import fact_of, kept
from dashboard.state.scene import Scene
from projector.figures.basis.page import View, basis_page
from projector.residual.basis.maps import MapFact, list_maps
from projector.residual.subject import Subject

V = TypeVar("V", bound=View)
_HEAD, _TOKEN = "basis head", "basis token"
# An item of the list of heads, because Streamlit takes None for nothing chosen.
_WHOLE = -1


def maps_of(scene: Scene) -> dict[str, MapFact]:
    """The linear maps of the chosen layer by name, or the reason why one is missing.

    Raises:
        UserError: if the model can't be loaded.
    """

    def make() -> dict[str, MapFact]:
        with scene.model() as guest:
            return {fact.name: fact for fact in list_maps(guest.subject, scene.layer)}

    return fact_of(("maps", scene.model_name, scene.sha256, scene.layer), make)


def choose_head_of(scene: Scene, n_heads: int, whole: str | None) -> int | None:
    """A field for the head of the chosen layer, bound to the selection.

    Args:
        whole: name of the item for no head; None if a head is needed, and the first is the default.
    """
    check_head(scene, n_heads)
    chosen = session.current().head
    options = [*([] if whole is None else [_WHOLE]), *range(n_heads)]
    session.bind(_HEAD, chosen if chosen in options else options[0])

    def change() -> None:
        head = int(st.session_state[_HEAD])
        if head == _WHOLE:
            session.change(head=None)
        else:
            choose_head(scene, scene.layer, head)

    found = st.selectbox(
        "Head",
        options,
        format_func=lambda head: str(whole) if head == _WHOLE else f"head {head}",
        key=_HEAD,
        on_change=change,
        width=200,
        disabled=not can_choose_head(scene, scene.layer),
    )
    return None if found == _WHOLE else int(found)


def choose_token(tokens: Tokens, position: int) -> None:
    """A field for the chosen token, bound to the selection."""
    texts = in_one_line(tokens.pieces)
    session.bind(_TOKEN, position)
    st.selectbox(
        "Token",
        range(len(texts)),
        format_func=lambda k: f"{k + 1} ‘{cut_label(texts[k], 24)}’",
        key=_TOKEN,
        on_change=lambda: session.change(token=st.session_state[_TOKEN]),
        width=200,
    )


def view_of(
    scene: Scene, name: str, key: Sequence[object], title: str, make: Callable[[Subject], V]
) -> V | None:
    """A view of the chosen layer, computed once; None if the user stopped it.

    Args:
        name: name of the kind of view.
        key: identifies this view among views of its kind, together with the model and the layer.
        title: label of the button that starts it again.

    Raises:
        UserError: from ``make``, or if the model can't be loaded.
    """
    whole = ("basis", name, scene.model_name, scene.sha256, scene.layer, *key)

    def find(begin: Begin) -> V:
        def compute() -> V:
            with begin(), scene.model() as guest:
                return make(guest.subject)

        return kept(whole, compute)

    return unless_stopped(f"basis {name}", whole, title, find)


def offer_page(view: View, stem: str, *, position: int | None = None, relu: bool = False) -> None:
    """A button that saves a view as a page, which is made after a click.

    Args:
        position, relu: initial state of the page, see
            :func:`projector.figures.basis.page.plane_data`.
    """
    st.download_button(
        "HTML",
        lambda: basis_page(view, position=position, relu=relu),
        f"{stem}.html",
        "text/html",
        key=f"html basis {stem}",
        icon=":material/download:",
        on_click="ignore",
        help="Saves this part as one page that needs no server. PNG, below the picture, saves "
        "only the picture.",
    )
