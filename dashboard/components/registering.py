"""Register a component of this folder with Streamlit."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import streamlit as st

_HERE = Path(__file__).parent


@cache
def component(stem: str, script: str = "", style: str = "") -> Any:
    """Register the component of ``<stem>.js`` and ``<stem>.css``, which draws into an element of
    that class.

    Register it once, because a second component with the same name would replace the first.

    Args:
        script: a module to put before ``<stem>.js``, if it is kept elsewhere.
        style: the style sheet, if there is no ``<stem>.css``.
    """
    own = (_HERE / f"{stem}.js").read_text(encoding="utf-8")
    return st.components.v2.component(
        f"transformer_projector_{stem}",
        html=f'<div class="{stem.replace("_", "-")}"></div>',
        css=style or (_HERE / f"{stem}.css").read_text(encoding="utf-8"),
        js=f"{script}\n{own}" if script else own,
    )
