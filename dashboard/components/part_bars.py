"""Signed bars, one a row with its name and value; some of them can be clicked."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import streamlit as st

from dashboard.drawing.grids import Bar

_HERE = Path(__file__).parent


def part_bars(bars: Sequence[Bar], *, key: str, on_pick: Callable[[int], None]) -> None:
    """Draw the bars, the positive ones to the right in orange, the negative ones to the left in
    blue.

    Args:
        on_pick: called with the number of the bar that was clicked, before the page runs again.
    """

    def picked() -> None:
        number = st.session_state[key].get("picked")
        if number is not None and 0 <= int(number) < len(bars) and bars[int(number)].can_pick:
            on_pick(int(number))

    data = json.dumps({"bars": [asdict(bar) for bar in bars]}).encode()
    _component()(key=key, data=data, on_picked_change=picked)


@cache
def _component() -> Any:
    # Registered once: a second one of the same name would take the first one's place.
    return st.components.v2.component(
        "transformer_projector_bars",
        html='<div class="part-bars"></div>',
        css=(_HERE / "part_bars.css").read_text(encoding="utf-8"),
        js=(_HERE / "part_bars.js").read_text(encoding="utf-8"),
    )
