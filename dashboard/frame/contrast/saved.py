"""Choose and read a report that the command wrote below the app's folders."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from dashboard.contrast.reports import read_report
from dashboard.state import session
from dashboard.state.loading import folders_with, kept, stamp_of
from dashboard.state.scene import Scene
from projector.errors import UserError
from projector.figures.contrast.series import Facts
from projector.figures.report import JSON_FILE

_CHOSEN = "contrast report"


def find_reports(scene: Scene) -> dict[str, Path]:
    """Folders with the report of a contrast, below the app's folders, by name."""
    everywhere = folders_with(scene.settings.roots, JSON_FILE)
    return {name: path for name, path in everywhere.items() if _is_one(path)}


def _is_one(path: Path) -> bool:
    try:
        _report_at(path)
    except UserError:
        return False
    return True


def _report_at(path: Path) -> Facts:
    return kept(("contrast report", path, stamp_of(path / JSON_FILE)), lambda: read_report(path))


def choose_report(found: dict[str, Path]) -> Facts:
    """Draw the list of reports, and return the chosen one.

    Raises:
        UserError: if it is damaged.
    """
    names = list(found)
    chosen = session.current().saved
    session.bind(_CHOSEN, chosen if chosen in names else names[0])
    name = st.selectbox(
        "Report",
        names,
        key=_CHOSEN,
        on_change=lambda: session.change(saved=st.session_state[_CHOSEN]),
    )
    return _report_at(found[name])
