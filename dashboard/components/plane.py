"""A plane before and after a linear map, with an animation; a toy matrix can be dragged."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import streamlit as st

from dashboard.components.registering import component
from projector.figures.basis.script import plane_script, plane_style
from projector.residual.basis.records import Matrix2


def plane(
    data: Mapping[str, Any], *, key: str, on_matrix: Callable[[Matrix2], None] | None = None
) -> None:
    """Draw the plane. Space plays and pauses, arrow keys move the time or a tip.

    Args:
        data: a :class:`projector.residual.basis.records.PlaneView` as a dict, and the additional
            ``selected`` and ``weights`` of ``plane.js``.
        on_matrix: called with the toy matrix after it was dragged, before the page runs again.
    """

    def dragged() -> None:
        found = _matrix(st.session_state[key].get("matrix"))
        if found is not None and on_matrix is not None:
            on_matrix(found)

    component("plane", plane_script(), plane_style())(
        key=key, data=json.dumps(data).encode(), on_matrix_change=dragged
    )


def _matrix(value: Any) -> Matrix2 | None:
    """The matrix from the browser; None if it isn't a matrix."""
    try:
        (a, b), (c, d) = ((float(x) for x in row) for row in value)
    except (TypeError, ValueError):
        return None
    return ((a, b), (c, d)) if all(math.isfinite(x) for x in (a, b, c, d)) else None
