"""How two sets of prompts part over the layers, run here or read from a saved report."""

from __future__ import annotations

import streamlit as st

from dashboard.frame.contrast.asking import SAVED, choose_source, show_fields
from dashboard.frame.contrast.running import result, run_asked
from dashboard.frame.contrast.saved import choose_report, find_reports
from dashboard.frame.contrast.showing import show_report
from dashboard.state import session
from dashboard.state.scene import Scene

TITLE, ICON, PATH = "Contrast", ":material/compare_arrows:", "contrast"


def show(scene: Scene) -> None:
    """Draw the page."""
    st.title("How two sets of prompts part")
    reports = find_reports(scene)
    source = choose_source(bool(reports))
    if source == SAVED:
        with session.problems():
            show_report(scene, choose_report(reports))
        return
    show_fields(scene, source)
    with session.problems():
        run_asked(scene)
    found = result(scene)
    if found is None:
        st.info("Press Run to compare the two sets in this model.", icon=":material/play_arrow:")
        return
    with session.problems():
        show_report(scene, found)
