"""How two sets of prompts separate over the layers, run here or read from a saved report."""

from __future__ import annotations

from functools import partial

import streamlit as st

from dashboard.contrast.orders import ContrastOrder, problems_of
from dashboard.frame.background.runs import Runs
from dashboard.frame.contrast.asking import SAVED, choose_source, show_fields
from dashboard.frame.contrast.saved import choose_report, find_reports
from dashboard.frame.contrast.showing import show_report
from dashboard.state import session
from dashboard.state.scene import Scene

TITLE, ICON, PATH = "Contrast", ":material/compare_arrows:", "contrast"
_RUNS = Runs("contrast")


def show(scene: Scene) -> None:
    """Draw the page."""
    st.title("How two sets of prompts separate")
    reports = find_reports(scene)
    source = choose_source(bool(reports))
    if source == SAVED:
        with session.problems():
            show_report(scene, choose_report(reports))
        return
    busy = _RUNS.is_busy(scene)
    order = show_fields(scene, source, is_busy=busy, run=partial(_start, scene))
    _RUNS.show_progress(scene)
    found = _RUNS.result(scene, order)
    if found is None:
        if not busy:
            st.info(
                "Press Run to compare the two sets in this model.", icon=":material/play_arrow:"
            )
        return
    if found.order != order:
        advice = "" if busy else " Press Run to compare the sets in the fields."
        st.info(
            session.plain(f"This report compares {found.order.words}.{advice}"),
            icon=":material/history:",
        )
    with session.problems():
        show_report(scene, found.found)


def _start(scene: Scene, order: ContrastOrder) -> None:
    _RUNS.start(scene, order, problems_of(order))
