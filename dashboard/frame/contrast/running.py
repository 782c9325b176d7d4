"""A contrast that a page runs in the background, with a bar and a button that stops it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import streamlit as st

from dashboard.background.contrast_job import ContrastJob
from dashboard.background.contrast_work import Request
from dashboard.contrast.orders import ContrastOrder, problems_of
from dashboard.drawing.text import page_text
from dashboard.state import session
from dashboard.state.scene import Scene
from dashboard.state.shelf import Key, contrast_jobs, shelf
from projector.errors import UserError
from projector.figures.contrast.series import Facts

_ASKED, _SHOWN, _PROBLEMS = "contrast asked", "contrast shown", "contrast problems"
_EVERY_S = 1.0


@dataclass(frozen=True)
class Result:
    """The report of an order."""

    order: ContrastOrder
    facts: Facts


def is_busy(scene: Scene) -> bool:
    """Whether a comparison in this model goes on."""
    return contrast_jobs().running(scene.sha256) is not None


def start(scene: Scene, order: ContrastOrder) -> None:
    """Compare two sets in the background. What can't be compared is told below the fields, and
    leaves the result of before as it was."""
    problems = problems_of(order)
    try:
        scene.settings.check_model(scene.model_name)
    except UserError as error:
        problems.append(error)
    if problems:
        st.session_state[_PROBLEMS] = [page_text(each) for each in problems]
        return
    st.session_state[_ASKED] = order
    key, kept = _key(scene, order), shelf()
    if kept.peek(key) is not None:
        return
    settings = scene.settings
    request = Request(scene.model_name, scene.sha256, settings.device, settings.dtype, order)

    def keep(report: dict[str, Any]) -> None:
        kept.keep(key, lambda: report)

    contrast_jobs().start(request, keep)


def show_progress(scene: Scene) -> None:
    """How far a comparison is, or why there was none."""
    for problem in st.session_state.pop(_PROBLEMS, ()):
        session.tell(problem)
    job = contrast_jobs().running(scene.sha256)
    if job is not None:
        st.fragment(_show_job, run_every=_EVERY_S)(job)
        return
    ended = contrast_jobs().take_ended(scene.sha256)
    if ended is not None and ended.error is not None:
        session.tell(page_text(ended.error))


def _show_job(job: ContrastJob) -> None:
    if not job.is_running:
        st.rerun(scope="app")
    columns = st.columns([3, 1], vertical_alignment="center")
    columns[0].progress(job.stage.share, session.plain(job.stage.text))
    if columns[1].button("Stop", key="stop contrast", width="stretch"):
        job.stop()
        # Its process is gone in a moment.
        job.wait(_EVERY_S)
        st.rerun(scope="app")
    words = f"{job.order.words[:1].upper()}{job.order.words[1:]}"
    st.caption(session.plain(f"{words}. The run goes on while you look at other pages."))


def result(scene: Scene, order: ContrastOrder) -> Result | None:
    """The report of what the fields hold, or else the one that was asked for or shown last."""
    state = st.session_state
    for each in (order, state.get(_ASKED), state.get(_SHOWN)):
        if isinstance(each, ContrastOrder):
            facts = shelf().peek(_key(scene, each))
            if facts is not None:
                state[_SHOWN] = each
                return Result(each, facts)
    return None


def _key(scene: Scene, order: ContrastOrder) -> Key:
    return ("contrast", scene.sha256, order.id)
