"""Signed bars, one per row with its name and value; some can be clicked."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict

import streamlit as st

from dashboard.components.registering import component
from dashboard.drawing.grids import Bar


def part_bars(bars: Sequence[Bar], *, key: str, on_pick: Callable[[int], None]) -> None:
    """Draw the bars: positive bars to the right in orange, negative bars to the left in blue.

    Args:
        on_pick: called with the number of the clicked bar, before the page runs again.
    """

    def picked() -> None:
        number = st.session_state[key].get("picked")
        if number is not None and 0 <= int(number) < len(bars) and bars[int(number)].can_pick:
            on_pick(int(number))

    data = json.dumps({"bars": [asdict(bar) for bar in bars]}).encode()
    component("part_bars")(key=key, data=data, on_picked_change=picked)
