"""A component of this room becomes known to Streamlit."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import streamlit as st

_HERE = Path(__file__).parent


@cache
def component(stem: str) -> Any:
    """The component of ``<stem>.js`` and ``<stem>.css``, which draws into an element of that class.

    Registered once: a second one of the same name would take the first one's place.
    """
    return st.components.v2.component(
        f"transformer_projector_{stem}",
        html=f'<div class="{stem.replace("_", "-")}"></div>',
        css=(_HERE / f"{stem}.css").read_text(encoding="utf-8"),
        js=(_HERE / f"{stem}.js").read_text(encoding="utf-8"),
    )
