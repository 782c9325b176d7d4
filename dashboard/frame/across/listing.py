"""Lists of neurons in other layers that correlate with the chosen neuron."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from dashboard.across.partners import Partner, Side, partners_of
from dashboard.across.words import levels, standing
from dashboard.drawing.text import cut_label, number
from dashboard.state import session
from dashboard.state.loading import of_projection
from dashboard.state.naming import described_at
from dashboard.state.scene import Scene
from projector.statistics.cross_layer.records import SITE, CrossLayerFacts, LayerPair

_MOST_LABEL = 32
_SIDES: tuple[Side, ...] = ("earlier", "later")
_HOW = "`projector fit … --cross-layer --resume`"
_NO_CONTROL = (
    "The control of single neurons is not known: an earlier version found these correlations. "
    f"{_HOW}, with the settings of the fit, adds it."
)
_HELP = (
    "The eight neurons with the highest |ρ| on each side, by Pearson's correlation over tokens. "
    "The control replaces the neurons of all layers on that side by as many random axes, and takes "
    "the best |ρ| among them. It shows whether single neurons recur in another layer, or only "
    "directions."
)


def how_to_add(scene: Scene) -> str | None:
    """Why partners across layers are missing and how to add them, as Markdown; None if present."""
    projection = scene.projection
    if projection.cross_layer is not None:
        return None
    if projection.cross_layer_problem is not None:
        return (
            "The correlations between layers can't be read: their files are damaged, or belong to "
            f"another projection. {_HOW}, with the settings of its fit, finds them again."
        )
    return (
        "This projection holds no correlations between layers. "
        f"{_HOW}, with the settings of its fit, adds them."
    )


def show_partners(scene: Scene, neuron: int) -> None:
    """Show the neurons of earlier and of later layers that it correlates with, and controls."""
    if scene.site != SITE:
        return
    st.subheader("Correlated neurons in other layers", help=_HELP)
    facts, lacks = scene.projection.cross_layer, how_to_add(scene)
    if facts is None:
        st.caption(lacks or "")
        return
    sides = {side: _partners(scene, side, neuron) for side in _SIDES}
    for column, (side, found) in zip(st.columns(2, gap="large"), sides.items(), strict=True):
        with column, st.container(gap=None, key=f"partners {side}"):
            st.markdown(f"**In {side} layers**")
            _show_side(scene, facts, side, found, neuron)
    st.caption(f"ρ over {facts.n_tokens:,} tokens of the corpus.")
    if not facts.has_controls:
        st.caption(_NO_CONTROL)


def show_strongest(scene: Scene) -> None:
    """Show the strongest partner of the chosen neuron on each side, as links."""
    neuron = session.current().neuron
    if neuron is None or scene.site != SITE or scene.projection.cross_layer is None:
        return
    found = [each for side in _SIDES for each in _partners(scene, side, neuron)[:1]]
    if not found:
        return
    with st.container(
        horizontal=True, vertical_alignment="center", gap="small", key="partners strongest"
    ):
        st.markdown("Most correlated in other layers:", width="content")
        for each in found:
            _link(scene, each, f"L{each.layer} N{each.neuron} :gray[{_rho(each)}]")


def _partners(scene: Scene, side: Side, neuron: int) -> tuple[Partner, ...]:
    return of_projection(
        "partners across layers",
        scene.path,
        scene.layer,
        neuron,
        side,
        make=lambda projection: partners_of(projection.partners(scene.layer), side, neuron),
    )


def _standing(scene: Scene, side: Side, neuron: int) -> str | None:
    return of_projection(
        "standing across layers",
        scene.path,
        scene.layer,
        neuron,
        side,
        make=lambda projection: standing(
            getattr(projection.partners(scene.layer), side), side, neuron
        ),
    )


def _show_side(
    scene: Scene, facts: CrossLayerFacts, side: Side, found: Sequence[Partner], neuron: int
) -> None:
    others = [
        layer
        for layer in facts.layers
        if (layer < scene.layer if side == "earlier" else layer > scene.layer)
    ]
    if not others:
        which = "first" if side == "earlier" else "last"
        st.caption(f"Layer {scene.layer} is the {which} one here: there are no {side} layers.")
        return
    if not found:
        st.caption(
            "None: the neuron has no correlation over these tokens, because it is dead or not "
            "finite."
        )
        return
    for each, (label, snippet) in zip(found, _described(scene, found), strict=True):
        pair = _pair(facts, scene.layer, each.layer)
        words = f"L{each.layer} N{each.neuron} :gray[{_rho(each)}]"
        words += f" {session.plain(cut_label(label, _MOST_LABEL))}" if label else ""
        _link(scene, each, words, snippet, levels(pair))
    said = _standing(scene, side, neuron)
    if said is not None:
        # A gap between the last link and the sentence below.
        st.space("xsmall")
        st.caption(said)


def _link(scene: Scene, each: Partner, words: str, *notes: str) -> None:
    told = "\n\n".join(session.plain(note) for note in notes if note)
    session.show_link(
        "neuron", words, help=told or None, layer=each.layer, site=SITE, neuron=each.neuron
    )


def _described(scene: Scene, found: Sequence[Partner]) -> list[tuple[str, str]]:
    """What each fires on, and its strongest example; "" for unknown."""
    of_layer: dict[int, list[int]] = {}
    for each in found:
        of_layer.setdefault(each.layer, []).append(each.neuron)
    known = {
        (layer, neuron): told
        for layer, neurons in of_layer.items()
        for neuron, told in zip(
            neurons, described_at(scene.path, layer, SITE, tuple(neurons)), strict=True
        )
    }
    return [known[each.layer, each.neuron] for each in found]


def _pair(facts: CrossLayerFacts, layer: int, other: int) -> LayerPair:
    return facts.pair(min(layer, other), max(layer, other))


def _rho(each: Partner) -> str:
    return number(each.rho, "+.2f")
