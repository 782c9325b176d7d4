"""Choose and read a picture that `projector layer-time` wrote below the app's folders."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from dashboard.layer_time.pictures import Picture, is_picture, read_picture
from dashboard.state import session
from dashboard.state.loading import folders_with, kept, stamp_of
from dashboard.state.scene import Scene
from dashboard.state.shelf import Key
from projector.errors import UserError
from projector.residual.particles.artifact import JSON_FILE, TENSOR_FILE

_CHOSEN, _SOURCE = "layer-time folder", "layer-time source"
_TYPED, _SAVED = "prompts", "saved"
_SOURCES = {_TYPED: "Prompts", _SAVED: "A saved folder"}


def find_pictures(scene: Scene) -> dict[str, Path]:
    """Folders with a picture, below the app's folders, by name."""
    everywhere = folders_with(scene.settings.roots, TENSOR_FILE)
    return {name: path for name, path in everywhere.items() if _is_one(path)}


def _is_one(path: Path) -> bool:
    try:
        stamp = stamp_of(path / JSON_FILE)
    except UserError:
        return False
    return kept(("layer-time folder", path, stamp), lambda: is_picture(path))


def choose_folder(found: dict[str, Path]) -> Path | None:
    """Choose between prompts and saved folders; return the chosen folder, None for prompts.

    Args:
        found: folders by name; nothing is drawn if there are none.
    """
    chosen = session.current().played
    if chosen is not None and chosen not in found:
        session.note(
            f"There is no saved picture '{chosen[:80]}' here: the page shows the prompts' picture."
        )
        session.change(played=None)
        chosen = None
    if not found:
        return None
    names = list(found)
    session.bind(_SOURCE, _TYPED if chosen is None else _SAVED)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        st.segmented_control(
            "Show",
            list(_SOURCES),
            format_func=_SOURCES.__getitem__,
            key=_SOURCE,
            required=True,
            on_change=lambda: session.change(
                played=names[0] if st.session_state[_SOURCE] == _SAVED else None
            ),
            label_visibility="collapsed",
            help="A folder that `projector layer-time` wrote, below the folders that the app was "
            "started with.",
        )
        if chosen is None:
            return None
        session.bind(_CHOSEN, chosen)
        st.selectbox(
            "Folder",
            names,
            key=_CHOSEN,
            on_change=lambda: session.change(played=st.session_state[_CHOSEN]),
        )
    return found[chosen]


def picture_at(path: Path) -> tuple[Key, Picture]:
    """The picture in a folder, and the shelf's key for it.

    Raises:
        UserError: if it is damaged.
    """
    key = ("layer-time saved", path, stamp_of(path / JSON_FILE), stamp_of(path / TENSOR_FILE))
    return key, kept(key, lambda: read_picture(path))
