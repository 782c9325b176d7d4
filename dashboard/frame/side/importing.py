"""Import trained positions: turn a checkpoint below the roots into a projection."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from dashboard.roots import name_of
from dashboard.state import session
from dashboard.state.loading import folders_with, forget_folders, kept, stamp_of
from dashboard.state.settings import Settings
from projector.errors import UserError
from projector.model.loading import BUNDLED
from projector.projection.importing import import_checkpoint
from projector.storage.headers import DamagedFile, read_header

CHECKPOINT = "model.safetensors"
_POSITIONS = ".neuron_projections"


def show_import(settings: Settings) -> None:
    """Offer checkpoints to import, if there are any."""
    found = {
        name: path / CHECKPOINT
        for name, path in folders_with(settings.roots, CHECKPOINT).items()
        if _has_positions(path / CHECKPOINT)
    }
    if not found:
        return
    with st.expander("Open trained positions", icon=":material/file_open:"):
        name = st.selectbox(
            "Checkpoint",
            list(found),
            key="import checkpoint",
            help=f"Folders whose {CHECKPOINT} holds positions of neurons.",
        )
        models = folders_with(settings.roots, "config.json")
        # The model is often saved next to its positions.
        names = [n for n in models if n == name] + [n for n in models if n != name] + [BUNDLED]
        if settings.model is not None:
            names.insert(0, settings.model)
        model = st.selectbox("Model of these positions", names, key="import model")
        if st.button("Open", key="import", icon=":material/play_arrow:"):
            with session.problems():
                given = str(models[model]) if model in models else model
                _import(settings, found[name], name, given)


def _import(settings: Settings, checkpoint: Path, name: str, model: str) -> None:
    settings.check_model(model)
    out = _free_place(settings.roots[0], name)
    with st.spinner("Reading the positions and the model …"):
        projection = import_checkpoint(checkpoint, model)
        try:
            projection.save(out)
        except OSError as error:
            raise UserError(
                f"folder '{out.parent.name}' can't be written to: {error.strerror}"
            ) from error
    forget_folders()
    session.change(projection=name_of(out, settings.roots))
    st.rerun()


def _free_place(root: Path, name: str) -> Path:
    """A folder name below the root that is free."""
    stem = f"{name.replace(':', '-').replace('/', '-')}-positions"
    place, n = root / stem, 2
    while place.exists():
        place, n = root / f"{stem}-{n}", n + 1
    return place


def _has_positions(path: Path) -> bool:
    def look() -> bool:
        try:
            return any(key.endswith(_POSITIONS) for key in read_header(path).shapes)
        except (DamagedFile, OSError):
            return False

    try:
        return kept(("has positions", path, stamp_of(path)), look)
    except UserError:
        return False
