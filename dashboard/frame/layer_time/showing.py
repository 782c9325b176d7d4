"""A picture of hidden states over the layers on a page: the viewer, how far it can be trusted, and
what to save."""

from __future__ import annotations

from typing import Any

import streamlit as st

from dashboard.drawing.tables import typeset
from dashboard.drawing.text import number
from dashboard.layer_time.pictures import Picture
from dashboard.state import session
from dashboard.state.scene import Scene
from dashboard.state.shelf import Key

_SHARE, _RANK = ".0%", ".2f"
# Figures of a frame, each beside its control: the report's name, the column's, and its form.
_FIGURES = (
    ("variance_explained", "Variance explained", _SHARE),
    ("variance_random", "… by random axes", _SHARE),
    ("neighbours_kept", "Neighbours kept", _SHARE),
    ("neighbours_chance", "… by chance", _SHARE),
    ("displacement_correlation", "Displacements’ rank correlation", _RANK),
    ("displacement_random", "… under random projections", _RANK),
)


def show_picture(scene: Scene, key: Key, picture: Picture, *, is_selected: bool) -> None:
    """Draw the viewer and all that is told of a picture.

    Args:
        key: where the shelf keeps the picture.
        is_selected: whether its prompts are the selected ones, so that a token of it is selected on
            every page.
    """
    reasons = picture.report.get("reasons") or {}
    if "predictions" in reasons:
        st.caption(session.plain(f"There are no predictions: {reasons['predictions']}."))
    _show_fidelity(picture)


def _show_fidelity(picture: Picture) -> None:
    """A row a frame: each figure beside what chance gives."""
    rows: list[dict[str, Any]] = list(picture.report.get("fidelity") or ())
    known = [each for each in _FIGURES if any(row.get(each[0]) is not None for row in rows)]
    if not known:
        return
    pooled = picture.report.get("displacement_correlation")
    with st.expander("How far each layer can be trusted"):
        columns = {"Frame": [str(row["frame"]) for row in rows]} | {
            name: [row.get(field) for row in rows] for field, name, _ in known
        }
        st.dataframe(
            typeset(columns, {name: form for _, name, form in known}),
            hide_index=True,
            width="stretch",
            height=min(420, 38 + 35 * len(rows)),
        )
        said = (
            "Each figure stands beside what it is where there is nothing to find. A "
            "displacement leads from one frame to the next, in the picture and in full space."
        )
        if pooled is not None:
            said += f" Over all frames their rank correlation is {number(pooled, _RANK)}."
        st.caption(session.plain(said))
