"""The autoencoder of a picture: whether it is trained already, and how to save it."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from dashboard.layer_time.keeping import is_kept, training_id
from dashboard.layer_time.orders import LayerTimeOrder
from dashboard.roots import name_of
from dashboard.state import session
from dashboard.state.loading import forget_folders
from dashboard.state.scene import Scene
from dashboard.state.store import autoencoder_folder
from projector.errors import UserError
from projector.residual.particles.autoencoder.artifact import Trained
from projector.residual.particles.settings import ParticleSettings

_KEY = "save autoencoder"


def folder_of_training(scene: Scene, settings: ParticleSettings) -> Path | None:
    """The folder of the autoencoder that these settings train; None if they don't train one."""
    training = training_id(settings, scene.sha256, scene.settings.dtype)
    return None if training is None else autoencoder_folder(training)


def has_autoencoder(order: LayerTimeOrder) -> bool:
    """Whether the autoencoder that an order trains exists already."""
    return order.kept_in is not None and is_kept(order.kept_in)


def offer_to_save(scene: Scene, order: LayerTimeOrder) -> None:
    """A button that copies an order's autoencoder below the app's first folder."""
    if order.kept_in is None or not has_autoencoder(order):
        return
    kept, root = order.kept_in, scene.settings.roots[0]
    out = root / f"autoencoder-{kept.name[:8]}"
    if is_kept(out):
        st.caption(
            session.plain(f"The autoencoder is saved as {name_of(out, scene.settings.roots)}.")
        )
        return

    def save() -> None:
        try:
            Trained.load(kept).save(out)
        except UserError as error:
            st.session_state[f"{_KEY} problem"] = error
        forget_folders()

    st.button(
        "Save the autoencoder",
        key=_KEY,
        icon=":material/save:",
        on_click=save,
        help=session.plain(
            f"Saves it in {root.name}/{out.name}. You can then choose it under More settings, or "
            "pass it to the command."
        ),
    )
    problem = st.session_state.pop(f"{_KEY} problem", None)
    if problem is not None:
        with session.problems():
            raise problem
