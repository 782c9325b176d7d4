"""All layers of the chosen token as one image, below the picture."""

from __future__ import annotations

import streamlit as st
from torch import Tensor

from dashboard.layer_time.images import token_png
from dashboard.layer_time.pictures import Picture
from dashboard.prompts import Tokens
from dashboard.state import session
from dashboard.state.loading import kept
from dashboard.state.scene import Scene
from projector.residual.particles.states import collect_states

_WORDS = "All layers of one token as an image"
_OF, _RANGE = "layer image of", "layer image range"
_OF_WORDS = {"token": "The chosen token", "mean": "Mean of all tokens"}
_RANGES = {"all": "One for all layers", "per-layer": "Each layer’s own"}


def show_image(scene: Scene, tokens: tuple[Tokens, ...]) -> None:
    """Draw the image if asked for: of the chosen token, or else of the prompt's last token."""
    place = st.expander(_WORDS, key="layer image", on_change="rerun")
    if not place.open:
        return
    with place, session.problems():
        with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
            of = st.segmented_control(
                "Image of",
                list(_OF_WORDS),
                format_func=_OF_WORDS.__getitem__,
                key=_OF,
                required=True,
                on_change=session.keep(_OF, "token"),
            )
            range_ = st.segmented_control(
                "Range of colours",
                list(_RANGES),
                format_func=_RANGES.__getitem__,
                key=_RANGE,
                required=True,
                on_change=session.keep(_RANGE, "all"),
            )
        chosen = session.current()
        which = int(chosen.other_token is not None and len(tokens) > 1)
        own = tokens[which]
        token = chosen.other_token if which else chosen.token
        last = len(own.pieces) - 1
        token = last if token is None else min(token, last)
        name = "AB"[which] if len(tokens) > 1 else ""
        _draw(_image(scene, own, None if of == "mean" else token, str(range_), name))


def show_saved_image(picture: Picture) -> None:
    """Draw the image that the command wrote next to the particles, if there is one."""
    if picture.image is None:
        return
    with st.expander("All layers of the last token as an image"):
        _draw(picture.image)


def _draw(png: bytes) -> None:
    st.image(png)
    st.download_button(
        "PNG",
        png,
        "layers.png",
        "image/png",
        key="layer image png",
        icon=":material/download:",
        on_click="ignore",
    )


def _image(scene: Scene, tokens: Tokens, token: int | None, range_: str, name: str) -> bytes:
    key = (scene.sha256, *tokens.ids)

    def run() -> Tensor:
        with scene.model() as guest:
            return collect_states(guest.subject, [tokens.ids])[0]

    def make() -> bytes:
        states = kept(("layer-time states", *key), run)
        # Their signs for line breaks and tabs are followed by the characters themselves.
        texts = [each.text.replace("\n", "").replace("\t", "") for each in tokens.pieces]
        model = str(scene.projection.facts.model.id)
        return token_png(states, token, texts, range=range_, model=model, prompt=name)

    return kept(("layer image", token, range_, name, *key), make)
