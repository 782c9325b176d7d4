"""The first screen if there is no projection yet; it can fit the bundled model."""

from __future__ import annotations

import streamlit as st

from dashboard.frame.side.importing import show_import
from dashboard.frame.work import Work, working
from dashboard.state import session
from dashboard.state.loading import forget_folders
from dashboard.state.settings import USUAL_PROJECTION, Settings
from projector.fitting.pipeline import run
from projector.fitting.preparing import prepare
from projector.fitting.settings import FitSettings

_TOKENS = 200_000


def show(settings: Settings) -> None:
    """Explain what is missing, and make it on request."""
    root = settings.roots[0]
    st.title("No projection yet")
    st.write(
        f"There is no projection below {session.plain(root.name)}/. Make one with `projector fit` "
        "or here; if yours lies in another folder, start the app with `--root` and that folder."
    )
    st.code("projector fit MODEL --corpus SOURCE --out runs/mine", language=None)
    show_import(settings)
    if not st.button(
        "Fit the bundled model now", type="primary", icon=":material/play_arrow:", key="fit now"
    ):
        st.caption(
            f"A small language model that ships with the program, over {_TOKENS:,} tokens of your "
            "Python's standard library: about a minute, nothing is downloaded."
        )
        return
    with working("Loading the model") as work:
        _fit(settings, work)
    forget_folders()
    session.change(projection=USUAL_PROJECTION)
    st.rerun()


def _fit(settings: Settings, work: Work) -> None:
    job = prepare(
        "bundled",
        "stdlib",
        FitSettings(max_tokens=_TOKENS),
        device=settings.device,
        dtype=settings.dtype,
        progress=work,
    )
    out = settings.roots[0] / USUAL_PROJECTION
    # This page also began a run of another version that may lie there.
    run(job, out=out, resume=True, force=True, progress=work)
