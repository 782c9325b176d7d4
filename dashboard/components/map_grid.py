"""Many small maps that can be clicked, with a column per layer and a row per site."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from dashboard.components.registering import component
from dashboard.drawing.encoding import id_of, text_of

_SENT = "sent small maps"


@dataclass(frozen=True, eq=False)
class SmallMap:
    """One of the maps.

    Attributes:
        row, column: its place.
        title: its text for screen readers and under the pointer.
        points: (N, 2) uint8, positions from the left and from the bottom, without neurons that have
            no position.
        colors: (N,) uint8, indices of the palette; 0 is pale and below the others.
        note: a few characters in its corner.
        is_first: whether it has a frame.
    """

    row: int
    column: int
    title: str
    points: NDArray[np.uint8]
    colors: NDArray[np.uint8]
    note: str = ""
    is_first: bool = False

    def data(self) -> dict[str, Any]:
        """The data for the browser, without points and colours."""
        return {
            "row": self.row,
            "column": self.column,
            "title": self.title,
            "note": self.note,
            "first": self.is_first,
        }


def map_grid(
    maps: Sequence[SmallMap],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    palette: NDArray[np.uint8],
    key: str,
    on_pick: Callable[[int], None],
) -> None:
    """Draw the maps; columns that don't fit side by side continue below.

    The points and colours of all maps are sent once per session.

    Args:
        rows, columns: headings of the rows and columns.
        palette: (256, 3) uint8.
        on_pick: called with the number of the clicked map, before the page runs again.
    """

    def picked() -> None:
        number = st.session_state[key].get("picked")
        if number is not None and 0 <= int(number) < len(maps):
            on_pick(int(number))

    sent: set[str] = st.session_state.setdefault(_SENT, set())

    def missed() -> None:
        # A page that was loaded again has no data yet.
        for each in st.session_state[key].get("missing") or ():
            sent.discard(str(each))

    def once(of_each: Sequence[NDArray[np.uint8]]) -> dict[str, Any]:
        """Bytes of every map, if the browser doesn't have them yet."""
        id = id_of(*of_each)
        is_new = id not in sent
        sent.add(id)
        return {"id": id, "bytes": list(map(text_of, of_each)) if is_new else None}

    data = {
        "maps": [each.data() for each in maps],
        "points": once([each.points for each in maps]),
        "colors": once([each.colors for each in maps]),
        "rows": list(rows),
        "columns": list(columns),
        "palette": text_of(palette),
    }
    # As bytes, like the map: Streamlit checks whether anything else is a table.
    component("map_grid")(
        key=key,
        data=json.dumps(data).encode(),
        on_picked_change=picked,
        on_missing_change=missed,
    )
