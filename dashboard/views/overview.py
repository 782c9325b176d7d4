"""The landing page: every layer and site of a projection at once."""

from __future__ import annotations

import streamlit as st

from dashboard.state.scene import Scene

TITLE, ICON, PATH = "Overview", ":material/dashboard:", "overview"


def show(scene: Scene) -> None:
    """Draw the page."""
    st.title("Overview")
