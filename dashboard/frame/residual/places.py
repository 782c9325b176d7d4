"""Select heads and neurons of any layer on every page."""

from __future__ import annotations

from typing import Any

import streamlit as st

from dashboard.state import session
from dashboard.state.loading import fact_of
from dashboard.state.scene import Scene
from projector.residual.logits.records import AttributedPart

_NEURONS = "mlp_post"


def _site_for_head(scene: Scene, layer: int) -> str | None:
    """The site that stays chosen with a head of a layer; a selection needs an existing map."""
    maps = scene.projection.maps
    if (layer, scene.site) in maps:
        return scene.site
    return next((site for each, site in maps if each == layer), None)


def can_choose_head(scene: Scene, layer: int) -> bool:
    """Whether the projection has a map of that layer, so that its heads can be selected."""
    return _site_for_head(scene, layer) is not None


def choose_layer(scene: Scene, layer: int) -> None:
    """Select a layer on every page, if the projection has a map of it."""
    site = _site_for_head(scene, layer)
    if site is not None and layer != scene.layer:
        session.change(layer=layer, site=site)


def can_choose_neuron(scene: Scene, layer: int) -> bool:
    """Whether the projection has a map of that layer's MLP neurons."""
    return (layer, _NEURONS) in scene.projection.maps


def choose_head(scene: Scene, layer: int, head: int) -> None:
    """Select a head on every page."""
    site = _site_for_head(scene, layer)
    if site is not None:
        session.change(layer=layer, site=site, head=head)


def choose_part(scene: Scene, part: AttributedPart) -> None:
    """Select the head or the neuron of a logit's part."""
    if part.layer is None:
        return
    if part.head is not None:
        choose_head(scene, part.layer, part.head)
    elif part.neuron is not None and can_choose_neuron(scene, part.layer):
        # The chosen head stays if it belongs to the same layer.
        session.change(layer=part.layer, site=_NEURONS, neuron=part.neuron)


def is_part(part: AttributedPart) -> bool:
    """Whether a logit's part is the selected head or neuron."""
    chosen = session.current()
    if part.layer is None or part.layer != chosen.layer:
        return False
    if part.head is not None:
        return part.head == chosen.head
    return part.neuron is not None and (part.neuron, chosen.site) == (chosen.neuron, _NEURONS)


def head_name(layer: int, head: int) -> str:
    """The name of a head on every page, such as ``L3 H5``."""
    return f"L{layer} H{head}"


def check_head(scene: Scene, known: int | None = None) -> None:
    """Report a link's head that doesn't exist, and drop it.

    Args:
        known: number of heads of the chosen layer; None asks the model.

    Raises:
        UserError: if the model can't be loaded.
    """
    head = session.current().head
    if head is None:
        return
    layer = scene.layer

    def make() -> int:
        with scene.model() as guest:
            blocks = guest.subject.patterns.blocks
            tap = blocks[layer] if layer < len(blocks) else ""
            return 0 if isinstance(tap, str) else tap.n_heads

    if known is None:
        known = fact_of(("number of heads", scene.model_name, scene.sha256, layer), make)
    if head >= known:
        session.note(f"Layer {layer} has no head {head:,}: no head is selected.")
        session.change(head=None)


def show_chosen_part(scene: Scene) -> dict[str, Any]:
    """Show the selected head and neuron, with links to their pages.

    Returns:
        ``head`` and ``neuron``, if selected.
    """
    chosen = session.current()
    found: dict[str, Any] = {}
    with st.container(horizontal=True, vertical_alignment="center"):
        if chosen.head is not None:
            found["head"] = chosen.head
            st.markdown(f"**{head_name(scene.layer, chosen.head)}** is selected", width="content")
            if st.button("Open it on Heads", key="open head", icon=":material/account_tree:"):
                session.go("heads")
        if chosen.neuron is not None and scene.site == _NEURONS:
            found["neuron"] = chosen.neuron
            st.markdown(f"**L{scene.layer} N{chosen.neuron}** is selected", width="content")
            if st.button("Open its card", key="open card", icon=":material/radio_button_checked:"):
                session.go("neuron")
    return found
