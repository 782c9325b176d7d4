"""A contrast that a page runs, with a bar and a button that stops it; kept for the session."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import streamlit as st

from dashboard.contrast.orders import ContrastOrder, check_order, run_order
from dashboard.frame.contrast import asking
from dashboard.frame.work import working
from dashboard.state.loading import kept
from dashboard.state.scene import Scene
from projector.errors import UserError
from projector.figures.contrast.series import Facts

_RESULT = "contrast result"


@dataclass(frozen=True)
class _Result:
    """What has run last in this session, and of which model."""

    sha256: str
    facts: Facts


def run_asked(scene: Scene) -> None:
    """Run what Run was pressed for. What can't be run leaves the result of before as it was."""
    order = asking.asked()
    if order is None:
        return
    try:
        check_order(order)
        facts = _run(scene, order)
    except UserError:
        asking.drop()
        raise
    asking.drop()
    st.session_state[_RESULT] = _Result(scene.sha256, facts)


def result(scene: Scene) -> Facts | None:
    """The report of what has run last, where that was this model."""
    found = st.session_state.get(_RESULT)
    is_own = isinstance(found, _Result) and found.sha256 == scene.sha256
    return found.facts if isinstance(found, _Result) and is_own else None


def _run(scene: Scene, order: ContrastOrder) -> dict[str, Any]:
    def make() -> dict[str, Any]:
        with working("Comparing the sets", asking.drop) as work, scene.model() as guest:
            return run_order(guest.subject, order, work)

    return kept(("contrast", scene.model_name, scene.sha256, order), make)
