"""Clicks on the cells of a Plotly heatmap: a click picks a cell, a double click resets the zoom."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import streamlit as st

_SOURCE = Path(__file__).with_suffix(".js")


def hear_clicks(inside: str, on_cell: Callable[[int, int], None]) -> None:
    """Call ``on_cell`` with the row and the column of each clicked cell.

    Args:
        inside: the key of the container that holds the one figure; letters, digits and underscores.
    """
    key = f"clicks {inside}"

    def heard() -> None:
        found = st.session_state[key].get("cell")
        if isinstance(found, list) and len(found) == 2:
            on_cell(int(found[0]), int(found[1]))

    _component()(key=key, data={"inside": inside}, on_cell_change=heard)


@cache
def _component() -> Any:
    # Registered once, because a second component with the same name would replace the first.
    return st.components.v2.component(
        "transformer_projector_plot_clicks",
        html="<span></span>",
        js=_SOURCE.read_text(encoding="utf-8"),
    )
