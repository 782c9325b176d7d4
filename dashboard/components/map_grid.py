"""Many small maps at once, each of which can be clicked: a column a layer, a row a site."""

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
        row, column: where it stands.
        title: what is read out, and shown when it is pointed at.
        points: (N, 2) uint8, where neurons are from the left and from the bottom; those without a
            position are left out.
        colors: (N,) uint8, an index of the palette; 0 is pale and lies below the others.
        note: a few characters in its corner.
        is_first: it has a frame.
    """

    row: int
    column: int
    title: str
    points: NDArray[np.uint8]
    colors: NDArray[np.uint8]
    note: str = ""
    is_first: bool = False

    def data(self) -> dict[str, Any]:
        """What the browser needs, but for its points and their colours."""
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
    """Draw the maps; columns that have no room side by side go on below.

    The points of all maps travel once in a session, and so do their colours.

    Args:
        rows, columns: what stands before them and above them.
        palette: (256, 3) uint8.
        on_pick: called with the number of the map that was clicked, before the page runs again.
    """

    def picked() -> None:
        number = st.session_state[key].get("picked")
        if number is not None and 0 <= int(number) < len(maps):
            on_pick(int(number))

    sent: set[str] = st.session_state.setdefault(_SENT, set())

    def missed() -> None:
        # A page that was loaded anew has nothing yet.
        for each in st.session_state[key].get("missing") or ():
            sent.discard(str(each))

    def once(of_each: Sequence[NDArray[np.uint8]]) -> dict[str, Any]:
        """Bytes of every map, where the browser has them not yet."""
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
    # As bytes, like the map: of anything else Streamlit asks whether it is a table.
    component("map_grid")(
        key=key,
        data=json.dumps(data).encode(),
        on_picked_change=picked,
        on_missing_change=missed,
    )
