"""The effect of a matrix on a plane: a 2 × 2 matrix to drag, or a map of the model."""

from __future__ import annotations

import numpy as np
import streamlit as st

from dashboard.components.plane import plane
from dashboard.frame.basis.choosing import choose_head_of, maps_of, offer_page, view_of
from dashboard.frame.residual.prompting import choose_prompt, in_one_line
from dashboard.prompts import Tokens
from dashboard.state import session
from dashboard.state.scene import Scene
from projector.errors import UserError
from projector.figures.basis.page import plane_data
from projector.figures.basis.words import upper
from projector.residual.basis.maps import NAMES, MapFact, read_map
from projector.residual.basis.planes import first_kept, read_points, view_map, view_matrix
from projector.residual.basis.records import Matrix2, PlaneView
from projector.residual.subject import Subject

_MAP, _SAME, _DRAGGED = "basis map", "basis same plane", "basis matrix"
# A link's value for drawing the plane before the map on both sides.
_BOTH = "same"
_TOY = "A 2 × 2 matrix to drag"
_FIRST: Matrix2 = ((1.4, 0.6), (0.2, 0.8))
_N_POINTS = 60
_WORDS = {
    "W_O": "W_O: from the heads' values to the attention output",
    "W_V": "W_V: from the attention input to the heads' values",
    "W_OV": "W_OV of a head: from the stream back to the stream",
    "MLP in": "MLP in: from the MLP input to the neurons",
    "MLP gate": "MLP gate: from the MLP input to the gate",
    "MLP out": "MLP out: from the neurons to the MLP output",
}


def show_matrix(scene: Scene) -> None:
    """The part of the page on a matrix."""
    st.caption(
        "The columns of a matrix show where the two basis vectors e₁ and e₂ go. Everything else "
        "follows: the grid, the circle, which becomes an ellipse whose half axes are as long as "
        "the singular values, and every point."
    )
    chosen = session.current().map
    if chosen is not None and chosen not in NAMES:
        session.note(
            f"This page has no matrix '{chosen[:80]}': the page shows one that you can drag."
        )
        session.change(map=None)
        chosen = None
    session.bind(_MAP, chosen or _TOY)
    name = st.selectbox(
        "Matrix",
        [_TOY, *NAMES],
        format_func=lambda each: _WORDS.get(each, each),
        key=_MAP,
        on_change=_choose_map,
        width=460,
    )
    if name == _TOY:
        show_toy(has_relu=False)
    else:
        _show_map(scene, str(name))


def _choose_map() -> None:
    name = st.session_state[_MAP]
    session.change(map=None if name == _TOY else name)


def show_toy(*, has_relu: bool) -> None:
    """The matrix to drag, with a ReLU after it if asked for."""
    matrix: Matrix2 = st.session_state.get(_DRAGGED, _FIRST)
    view = view_matrix(matrix, _cloud())

    def keep(found: Matrix2) -> None:
        st.session_state[_DRAGGED] = found

    key = "plane of a ReLU" if has_relu else "plane of a matrix"
    plane(plane_data(view, relu=has_relu), key=key, on_matrix=keep)
    st.caption(
        "Drag the tips of e₁ and e₂, or press arrow keys on them. Space plays. "
        "The determinant is the factor by which areas grow."
    )
    stem = "change-of-basis-relu" if has_relu else "change-of-basis"
    offer_page(view, stem, relu=has_relu)


def _cloud() -> list[tuple[float, float]]:
    """Points drawn once, the same for everyone: (60, 2), standard normal about (0.3, 0.1)."""
    drawn = np.random.default_rng(0).standard_normal((_N_POINTS, 2)) + np.array((0.3, 0.1))
    return [(round(x, 3), round(y, 3)) for x, y in drawn.tolist()]


def _show_map(scene: Scene, name: str) -> None:
    fact = maps_of(scene)[name]
    if fact.reason is not None:
        raise UserError(f"layer {scene.layer} has no map {name}: {fact.reason}")
    head, is_same = _choose(scene, fact)
    # Above the prompt, which the plane doesn't need.
    place = st.container()
    st.subheader("Points: tokens of a prompt (optional)")
    tokens = None
    with session.problems():
        tokens = choose_prompt(scene, must=False)
    with place:
        _draw_map(scene, name, head, is_same, tokens)


def _draw_map(
    scene: Scene, name: str, head: int | None, is_same: bool, tokens: Tokens | None
) -> None:
    view = _view(scene, name, head, is_same, tokens)
    if view is None:
        return
    st.subheader(session.plain(upper(view.title)))
    plane(plane_data(view), key="plane of a map")
    st.caption(
        "The plane is that of the map's top two singular directions."
        + (" Points are the tokens of the prompt." if tokens is not None else "")
    )
    offer_page(view, "-".join(view.title.replace("·", "").split()))


def _choose(scene: Scene, fact: MapFact) -> tuple[int | None, bool]:
    """The head, and whether the same plane is drawn before and after."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        head = None
        if fact.n_heads:
            whole = None if fact.needs_head else "all heads side by side"
            head = choose_head_of(scene, fact.n_heads, whole)
        if fact.name != "W_OV":
            return head, False
        session.bind(_SAME, session.current().plane == _BOTH)
        is_same = st.toggle(
            "The same plane after",
            key=_SAME,
            on_change=_choose_plane,
            help="W_OV maps the stream to the stream. Off: the right plane is spanned by the "
            "images of the top two directions, so the map only stretches. On: the plane "
            "stays the same, the matrix is VᵀWV, and you see rotations and shears.",
        )
    return head, bool(is_same)


def _choose_plane() -> None:
    session.change(plane=_BOTH if st.session_state[_SAME] else None)


def _view(
    scene: Scene, name: str, head: int | None, is_same: bool, tokens: Tokens | None
) -> PlaneView | None:
    prompt = None if tokens is None else tokens.prompt.id

    def make(subject: Subject) -> PlaneView:
        found = read_map(subject, scene.layer, name, head)
        if tokens is None:
            return view_map(found, same_plane=is_same)
        points, _ = read_points(subject, found, tokens.ids)
        labels = in_one_line(tokens.pieces)[first_kept(subject, tokens.ids) :]
        return view_map(found, points, labels, same_plane=is_same)

    return view_of(scene, "map", (name, head, is_same, prompt), "Compute the plane", make)
