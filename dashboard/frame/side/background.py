"""Find missing poles of all maps in the background, with a button that stops it."""

from __future__ import annotations

import time

import streamlit as st

from dashboard.background.pole_job import PoleJob, error_of, find_job, start_job, stop_job
from dashboard.drawing.text import page_text
from dashboard.frame.chosen import poles_shown
from dashboard.state import session
from dashboard.state.every_map import maps_without_poles
from dashboard.state.loading import stamp_of
from dashboard.state.scene import Scene
from projector.errors import UserError
from projector.projection.overview import FACTS_FILE

_EVERY_S = 2.0
# Seconds until a page with all maps is drawn again, at the earliest.
_REDRAW_S = 6.0
_SEEN, _DRAWN_AT = "poles seen", "drew all maps at"


def find_in_background(
    scene: Scene, place: st.delta_generator.DeltaGenerator, *, shows_all: bool
) -> None:
    """Start to find missing poles, and show the progress in the sidebar.

    Args:
        shows_all: whether the page shows all maps and is drawn again as poles are found. Other
            pages are drawn again when the poles of their own map are found.
    """
    missing = maps_without_poles(scene.path)
    stamp = str(stamp_of(scene.path / FACTS_FILE))
    job = find_job(scene.path, stamp)
    if not missing:
        return
    with place:
        try:
            if job is None and scene.settings.finds_poles:
                job = start_job(scene.path, stamp)
        except UserError as error:
            st.caption(
                session.plain(f"Each page finds only the poles of its own map: {page_text(error)}.")
            )
            return
        if job is None:
            return
        st.session_state[_SEEN] = len(missing), _known(scene)
        st.session_state.setdefault(_DRAWN_AT, time.monotonic())
        st.fragment(_show, run_every=_EVERY_S if job.is_running else None)(scene, job, shows_all)


def _show(scene: Scene, job: PoleJob, shows_all: bool) -> None:
    n_maps = len(scene.projection.maps)
    n_missing = len(maps_without_poles(scene.path))
    job = find_job(scene.path, job.stamp) or job
    _redraw_if_due(scene, job, n_missing, shows_all)
    n_done = n_maps - n_missing
    if job.is_running:
        st.progress(n_done / n_maps, f"Finding poles … {n_done:,} of {n_maps:,} maps")
        if st.button("Stop", key="stop poles", icon=":material/stop_circle:"):
            try:
                stop_job(job)
            except UserError as problem:
                st.caption(session.plain(page_text(problem)))
                return
            st.rerun(scope="app")
        return
    if not n_missing:
        return
    error = None if job.is_stopped else error_of(job)
    reason = "" if error is None else f": {page_text(error)}"
    st.caption(
        session.plain(f"The search for poles stopped after {n_done:,} of {n_maps:,} maps{reason}.")
    )
    if st.button("Resume", key="resume poles", icon=":material/play_arrow:"):
        try:
            start_job(scene.path, job.stamp)
        except UserError as problem:
            st.caption(session.plain(page_text(problem)))
            return
        st.rerun(scope="app")


def _redraw_if_due(scene: Scene, job: PoleJob, n_missing: int, shows_all: bool) -> None:
    """Draw the whole page again if it can show more."""
    known = _known(scene)
    n_seen, knew = st.session_state.get(_SEEN, (n_missing, known))
    is_over = n_missing == 0 or not job.is_running
    is_due = time.monotonic() - st.session_state.get(_DRAWN_AT, 0.0) > _REDRAW_S
    if known != knew or (n_missing != n_seen and (is_over or (shows_all and is_due))):
        st.session_state[_SEEN] = n_missing, known
        st.session_state[_DRAWN_AT] = time.monotonic()
        st.rerun(scope="app")


def _known(scene: Scene) -> tuple[tuple[bool, bool], ...]:
    """Whether poles and controls are known, for each site of the chosen layer."""
    sites = [
        site for site in scene.projection.sites if (scene.layer, site) in scene.projection.maps
    ]
    found = [poles_shown(scene, site) for site in sites]
    return tuple(
        (each is not None, each is not None and each.controls is not None) for each in found
    )
