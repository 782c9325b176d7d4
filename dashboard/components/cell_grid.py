"""A table of coloured cells that scrolls, each of which can be clicked: rows × tokens, say."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import streamlit as st

from dashboard.drawing.grids import CellGrid

_HERE = Path(__file__).parent


def cell_grid(grid: CellGrid, *, key: str, on_pick: Callable[[int, int], None]) -> None:
    """Draw the table. Columns out of sight are not built, so that thousands may stand there.

    Arrow keys move between cells, Enter picks one.

    Args:
        on_pick: called with row and column of the cell that was picked, before the page runs again.
    """

    def picked() -> None:
        found = st.session_state[key].get("picked")
        if not isinstance(found, list) or len(found) != 2:
            return
        row, column = (int(each) for each in found)
        if 0 <= row < len(grid.rows) and 0 <= column < len(grid.columns):
            on_pick(row, column)

    # As bytes, like the map: of anything else Streamlit asks whether it is a table.
    _component()(key=key, data=json.dumps(grid.data()).encode(), on_picked_change=picked)


@cache
def _component() -> Any:
    # Registered once: a second one of the same name would take the first one's place.
    return st.components.v2.component(
        "transformer_projector_cells",
        html='<div class="cell-grid"></div>',
        css=(_HERE / "cell_grid.css").read_text(encoding="utf-8"),
        js=(_HERE / "cell_grid.js").read_text(encoding="utf-8"),
    )
