"""A scrolling table of coloured cells that can be clicked, for example rows × tokens."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

import streamlit as st

from dashboard.components.registering import component
from dashboard.drawing.grids import CellGrid

_SENT = "tables sent"


def cell_grid(grid: CellGrid, *, key: str, on_pick: Callable[[int, int], None]) -> None:
    """Draw the table. Hidden columns are not built, so there can be thousands.

    Arrow keys move between cells, Enter picks one. The table is sent once per session; after that
    only the selected cell.

    Args:
        on_pick: called with row and column of the picked cell, before the page runs again.
    """

    def picked() -> None:
        found = st.session_state[key].get("picked")
        if not isinstance(found, list) or len(found) != 2:
            return
        row, column = (int(each) for each in found)
        if 0 <= row < len(grid.rows) and 0 <= column < len(grid.columns):
            on_pick(row, column)

    sent: set[str] = st.session_state.setdefault(_SENT, set())

    def missed() -> None:
        # A page that was loaded again has no data yet.
        for each in st.session_state[key].get("missing") or ():
            sent.discard(str(each))

    shown = grid.data()
    data = {"selected": shown.pop("selected")}
    data["id"] = hashlib.sha256(json.dumps(shown).encode()).hexdigest()[:16]
    if data["id"] not in sent:
        data |= shown
    sent.add(data["id"])
    # As bytes, like the map: Streamlit checks whether anything else is a table.
    component("cell_grid")(
        key=key,
        data=json.dumps(data).encode(),
        on_picked_change=picked,
        on_missing_change=missed,
    )
