"""Hidden states as particles that move from layer to layer, run here or read from a folder."""

from __future__ import annotations

from functools import partial

import streamlit as st

from dashboard.frame.background.runs import Runs
from dashboard.frame.layer_time.autoencoders import (
    folder_of_training,
    has_autoencoder,
    offer_to_save,
)
from dashboard.frame.layer_time.choosing import choose_settings
from dashboard.frame.layer_time.imaging import show_image, show_saved_image
from dashboard.frame.layer_time.prompting import choose_prompts
from dashboard.frame.layer_time.saved import choose_folder, find_pictures, picture_at
from dashboard.frame.layer_time.showing import show_picture
from dashboard.frame.residual.stopping import Begin, unless_stopped
from dashboard.layer_time.orders import LayerTimeOrder, make_picture
from dashboard.layer_time.pictures import Picture
from dashboard.prompts import Tokens
from dashboard.state import session
from dashboard.state.loading import fact_of, kept
from dashboard.state.scene import Scene
from dashboard.state.store import stored_autoencoders
from projector.residual.particles.pairing.cost import count_weights

TITLE, ICON, PATH = "Layer-time", ":material/animation:", "layer-time"
_RUNS = Runs("layer-time", Picture.of_record)


def show(scene: Scene) -> None:
    """Draw the page."""
    st.title("How hidden states move from layer to layer")
    tokens: tuple[Tokens, ...] = ()
    with session.problems():
        folder = choose_folder(find_pictures(scene))
        if folder is not None:
            key, picture = picture_at(folder)
            show_picture(scene, key, picture, is_selected=False)
            show_saved_image(picture)
            return
        tokens = choose_prompts(scene)
        if tokens:
            _show_particles(scene, tokens)
    if tokens:
        # Also for a single token, for which there is no picture of particles.
        show_image(scene, tokens)


def _show_particles(scene: Scene, tokens: tuple[Tokens, ...]) -> None:
    settings = choose_settings(scene, has_pair=len(tokens) > 1)
    order = LayerTimeOrder(
        tuple(each.prompt for each in tokens), settings, folder_of_training(scene, settings)
    )
    busy = _RUNS.is_busy(scene)
    is_quick = order.is_quick(_count_weights(scene), [each.ids for each in tokens])
    if is_quick:
        _run_here(scene, order, tokens)
    else:
        st.button(
            "Start",
            type="primary",
            key="start layer-time",
            icon=":material/play_arrow:",
            disabled=busy or _RUNS.peek(scene, order) is not None,
            on_click=partial(_start, scene, order),
        )
    if busy and not is_quick and _RUNS.peek(scene, order) is None:
        st.caption(
            "Only one run can be in progress. Start is available again when the run below ends or "
            "you press Stop."
        )
    _RUNS.show_progress(scene)
    _show_result(scene, order, may_start=not busy and not is_quick)


def _start(scene: Scene, order: LayerTimeOrder) -> None:
    # Autoencoders that earlier runs kept.
    stored_autoencoders().trim()
    _RUNS.start(scene, order)


def _count_weights(scene: Scene) -> int:
    """The number of weights of the model's layers."""

    def make() -> int:
        with scene.model() as guest:
            return count_weights(guest.architecture)

    return fact_of(("weights of layers", scene.sha256), make)


def _run_here(scene: Scene, order: LayerTimeOrder, tokens: tuple[Tokens, ...]) -> None:
    """Run a quick order on the page, unless it was run before."""
    key = _RUNS.key(scene, order)

    def find(begin: Begin) -> Picture:
        def make() -> Picture:
            with begin() as work, scene.model() as guest:
                return make_picture(guest.subject, order, work, [each.ids for each in tokens])

        return kept(key, make)

    unless_stopped("layer-time", key, "Place the particles", find)


def _show_result(scene: Scene, order: LayerTimeOrder, *, may_start: bool) -> None:
    found = _RUNS.result(scene, order)
    if found is None:
        if may_start:
            st.info(
                session.plain(
                    f"Press Start for {order.words}. This runs in the background{_training(order)}."
                ),
                icon=":material/play_arrow:",
            )
        return
    is_own = found.order == order
    if not is_own:
        advice = ""
        if may_start:
            advice = f" Press Start to run the settings above{_training(order)}."
        st.info(
            session.plain(f"This picture shows {found.order.words}.{advice}"),
            icon=":material/history:",
        )
    same = isinstance(found.order, LayerTimeOrder) and found.order.prompts == order.prompts
    show_picture(scene, _RUNS.key(scene, found.order), found.found, is_selected=same)
    if isinstance(found.order, LayerTimeOrder):
        if found.found.has_old_autoencoder:
            st.caption("Uses the autoencoder trained before with the same training settings.")
        offer_to_save(scene, found.order)


def _training(order: LayerTimeOrder) -> str:
    """The end of a sentence on what running an order needs."""
    return ", with the autoencoder trained before" if has_autoencoder(order) else ""
