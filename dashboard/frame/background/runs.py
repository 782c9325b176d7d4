"""Background runs of a page, with a progress bar and a button that stops them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import streamlit as st

from dashboard.background.job import Job
from dashboard.background.work import Request
from dashboard.background.works import Order
from dashboard.drawing.text import page_text
from dashboard.state import session
from dashboard.state.scene import Scene
from dashboard.state.shelf import Key, jobs, shelf
from projector.errors import UserError

_EVERY_S = 1.0


@dataclass(frozen=True)
class Result:
    """The result of an order."""

    order: Order
    found: Any


@dataclass(frozen=True)
class Runs:
    """All runs of one kind on a page.

    Attributes:
        work: a name in :data:`dashboard.background.works.WORKS`; the shelf's kind too.
        read: turns a process's report into the result that the page shows.
    """

    work: str
    read: Callable[[dict[str, Any]], Any] = lambda report: report

    def is_busy(self, scene: Scene) -> bool:
        """Whether a run with this model is in progress."""
        return jobs().running(self.work, scene.sha256) is not None

    def start(self, scene: Scene, order: Order, problems: Iterable[UserError] = ()) -> None:
        """Run an order in the background. If it can't run, :meth:`show_progress` shows why, and the
        earlier result stays.

        Args:
            problems: reasons why it can't run, if known.
        """
        told = [*problems]
        try:
            scene.settings.check_model(scene.model_name)
        except UserError as error:
            told.append(error)
        state = st.session_state
        if told:
            state[f"{self.work} problems"] = [page_text(each) for each in told]
            return
        self.ask(order)
        if self.peek(scene, order) is not None:
            return
        settings = scene.settings
        request = Request(
            self.work, scene.model_name, scene.sha256, settings.device, settings.dtype, order
        )
        key, kept = self.key(scene, order), shelf()

        def keep(report: dict[str, Any]) -> None:
            kept.keep(key, lambda: self.read(report))

        jobs().start(request, keep)

    def ask(self, order: Order) -> None:
        """Note that an order was asked for; its result is shown when it is ready."""
        st.session_state[f"{self.work} asked"] = order

    def show_progress(self, scene: Scene) -> None:
        """Show a run's progress, or why it failed."""
        for problem in st.session_state.pop(f"{self.work} problems", ()):
            session.tell(problem)
        job = jobs().running(self.work, scene.sha256)
        if job is not None:
            st.fragment(self._show_job, run_every=_EVERY_S)(job)
            return
        ended = jobs().take_ended(self.work, scene.sha256)
        if ended is not None and ended.error is not None:
            session.tell(page_text(ended.error))

    def _show_job(self, job: Job) -> None:
        if not job.is_running:
            st.rerun(scope="app")
        columns = st.columns([3, 1], vertical_alignment="center")
        stage = job.stage
        if stage.total:
            columns[0].progress(stage.share, session.plain(stage.text))
        else:
            # The progress is unknown: an empty bar would look as if nothing were done.
            columns[0].status(session.plain(stage.text))
        if columns[1].button("Stop", key=f"stop {self.work}", width="stretch"):
            job.stop()
            # Its process ends in a moment.
            job.wait(_EVERY_S)
            st.rerun(scope="app")
        st.caption(
            session.plain(
                f"Running: {job.order.words}. It continues while you look at other pages."
            )
        )

    def result(self, scene: Scene, order: Order) -> Result | None:
        """The result for the fields, or else for the order that was last asked for or shown."""
        state = st.session_state
        known: list[Order | None] = [order]
        known += [state.get(f"{self.work} {name}") for name in ("asked", "shown")]
        for each in known:
            if each is None:
                continue
            found = self.peek(scene, each)
            if found is not None:
                state[f"{self.work} shown"] = each
                return Result(each, found)
        return None

    def peek(self, scene: Scene, order: Order) -> Any:
        """The result of an order; None if it was not run."""
        return shelf().peek(self.key(scene, order))

    def key(self, scene: Scene, order: Order) -> Key:
        """The shelf's key for the result of an order."""
        return (self.work, scene.sha256, order.id)
