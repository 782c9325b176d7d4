"""The landing page: every layer and site of a projection, and the poles that stand out."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import streamlit as st

from dashboard.components.map_grid import SmallMap, map_grid
from dashboard.drawing import coloring, palette
from dashboard.drawing.figures import organisation_figure
from dashboard.drawing.text import neuron_name, number
from dashboard.frame.work import working
from dashboard.overview import Group, strongest_groups
from dashboard.state import session
from dashboard.state.every_map import (
    every_pole_at,
    measure_organisation_at,
    organisation_known,
    small_maps_at,
)
from dashboard.state.naming import saved_pole_name
from dashboard.state.scene import Scene
from projector.sites import MapKey, site_words
from projector.statistics.organisation import Organisation, most_organised
from pruning.poles.poles import Poles, counts_words

TITLE, ICON, PATH = "Overview", ":material/dashboard:", "overview"
_PICKED = "picked small map"
_N_GROUPS, _MOST_GROUPS = 6, 60
# Most points of one small map; with more neurons, an even sample is drawn.
_MOST_POINTS = 6_000


def show(scene: Scene) -> None:
    """Draw the page."""
    picked = st.session_state.pop(_PICKED, None)
    if picked is not None:
        layer, site = picked
        session.change(layer=layer, site=site)
        session.go("map")
    st.title("Overview")
    st.caption(session.plain(_about(scene)))
    organised = organisation_known(scene.path)
    sentence = most_organised(organised)
    if sentence is not None:
        st.markdown(session.plain(sentence))
    found: dict[MapKey, Poles] = {}
    with session.problems():
        found = every_pole_at(
            scene.path, scene.layout, partial(session.pole_settings, scene.projection)
        )
    with session.problems():
        _show_groups(scene, found)
    with session.problems():
        _show_maps(scene, organised, found)
    with session.problems():
        _show_curves(scene, organised)


def _about(scene: Scene) -> str:
    """An introduction to the projection, for new users."""
    facts = scene.projection.facts
    over = ""
    if facts.corpus is not None:
        over = f" over {facts.corpus.n_tokens:,} tokens of {facts.corpus.source}"
    return (
        f"How the neurons of {facts.model.id} are organised{over}. A point is a neuron; neurons "
        "that fire together are near one another. A pole is a group of correlated neurons."
    )


def _show_maps(
    scene: Scene, organised: Mapping[MapKey, Organisation], found: Mapping[MapKey, Poles]
) -> None:
    projection = scene.projection
    flat = small_maps_at(scene.path, scene.layout)
    layers = sorted({layer for layer, _ in flat})
    sites = [site for site in projection.sites if any(s == site for _, s in flat)]
    first = _most_organised_key(organised)
    maps = []
    for (layer, site), each in flat.items():
        poles = found.get((layer, site))
        every = slice(None, None, -(-len(each.neurons) // _MOST_POINTS) or 1)
        colors = np.full(len(each.neurons), palette.NO_GROUP, dtype=np.uint8)
        if poles is not None:
            colors = coloring.color_by_pole(poles).values[each.neurons]
        n_distinct = None if poles is None else poles.n_distinct
        maps.append(
            SmallMap(
                row=sites.index(site),
                column=layers.index(layer),
                title=_title(scene, layer, site, organised.get((layer, site)), poles),
                points=each.points[every],
                colors=colors[every],
                note="" if not n_distinct else str(n_distinct),
                is_first=(layer, site) == first,
            )
        )

    def pick(number: int) -> None:
        st.session_state[_PICKED] = list(flat)[number]

    map_grid(
        maps,
        rows=[site_words(site) for site in sites],
        columns=[f"L{layer}" for layer in layers],
        palette=palette.groups(dark=st.context.theme.type == "dark"),
        key="every map",
        on_pick=pick,
    )
    said = [f"Placed by layout {scene.layout}; click a map to open it."]
    if found:
        said.append("Colours are poles within a map; neurons in no pole are pale.")
        said.append(_counts(found))
    if first is not None and len(flat) > 1:
        said.append("The framed map is the most organised.")
    st.caption(session.plain(" ".join(said)))


def _counts(found: Mapping[MapKey, Poles]) -> str:
    """The number of distinct poles of all maps, with both controls."""
    judged = [poles for poles in found.values() if poles.n_distinct is not None]
    if not judged:
        return ""
    where = "1 map" if len(judged) == 1 else f"{len(judged):,} maps"
    return f"The number counts distinct poles. In {where}: {counts_words(judged)}."


def _most_organised_key(organised: Mapping[MapKey, Organisation]) -> MapKey | None:
    return min(
        organised,
        key=lambda key: (
            organised[key].effective_dimension / organised[key].effective_dimension_by_chance
        ),
        default=None,
    )


def _title(
    scene: Scene, layer: int, site: str, organisation: Organisation | None, poles: Poles | None
) -> str:
    """The text of a small map under the pointer."""
    n_neurons = scene.projection.figures(layer, site).n_neurons
    said = [f"Layer {layer}, {site_words(site)}: {n_neurons:,} neurons"]
    if organisation is not None:
        said.append(
            f"effective dimension {organisation.effective_dimension:,.0f} "
            f"(chance {organisation.effective_dimension_by_chance:,.0f})"
        )
    if poles is not None:
        n = len(poles.poles)
        said.append("1 pole" if n == 1 else f"{n} poles")
        said.append(counts_words([poles]))
    return "; ".join(filter(None, said))


def _show_groups(scene: Scene, found: Mapping[MapKey, Poles]) -> None:
    if not found:
        return
    is_all = bool(st.session_state.get("all groups"))
    groups = strongest_groups(found, _MOST_GROUPS)
    if not groups:
        st.caption("No map has a pole.")
        return
    st.subheader(
        "Poles that stand out most",
        help="A pole is a group of neurons that fire together, found on ρ. Its margin is the mean "
        "ρ inside minus the mean ρ to the nearest other pole. A pole is distinct when both halves "
        "of the corpus agree on it and shuffled correlations give no such pole.",
    )
    left, right = st.columns(2)
    shown = groups if is_all else groups[:_N_GROUPS]
    half = -(-len(shown) // 2)
    for number_, group in enumerate(shown):
        with left if number_ < half else right:
            _show_group(scene, group, found[group.layer, group.site])
    if len(groups) > _N_GROUPS:
        st.toggle(f"Show {len(groups)} poles", key="all groups")
    if not any(group.pole.label for group in groups):
        st.caption(_why_no_label(scene))


def _show_group(scene: Scene, group: Group, poles: Poles) -> None:
    pole = group.pole
    name = saved_pole_name(scene.path, poles, group.number, scene.layout)
    name = name or f"Pole {group.number}"
    facts = [f"{neuron_name(group.layer, group.site)}, {pole.size} neurons"]
    if pole.within_rho is not None:
        facts.append(f"ρ {number(pole.within_rho, '.2f')}")
    if pole.distinct is not None:
        facts.append("distinct" if pole.distinct else "weak")
    # On two lines, because a narrow page would cut the figures off on one.
    with st.container(gap=None):
        session.show_link(
            "map",
            f"**{session.plain(name)}**",
            layer=group.layer,
            site=group.site,
            pole=group.number,
            neuron=None,
            marked=(),
        )
        st.caption(session.plain(" · ".join(facts)))


def _why_no_label(scene: Scene) -> str:
    if scene.projection.has_examples:
        return "Poles get their labels while poles are compared with controls."
    return (
        "Poles have no labels: this projection keeps no examples of what its neurons fire on. "
        "`projector fit` keeps them."
    )


def _show_curves(scene: Scene, organised: Mapping[MapKey, Organisation]) -> None:
    projection = scene.projection
    if not projection.has_statistics:
        st.caption(
            "How organised the maps are is not known: this projection keeps no statistics. "
            "`projector fit` keeps them."
        )
        return
    missing = [
        key
        for key in projection.maps
        if key not in organised and projection.has_statistics_of(*key)
    ]
    if organised:
        st.subheader(
            "How organised each layer is",
            help="The effective dimension is N² / Σρ²: the number of directions in which N neurons "
            "vary. A neuron's partner is another neuron with |ρ| of at least 0.3 to it. "
            "Dotted lines show independent neurons at this number of tokens.",
        )
        figure = organisation_figure(organised, projection.sites)
        st.plotly_chart(figure, key="organisation", config={"displayModeBar": False})
    if missing and st.button(
        "Measure how organised each map is", key="measure organisation", icon=":material/insights:"
    ):
        with working("Measuring how organised each map is") as work:
            work.begin("Measuring how organised each map is", len(missing), "maps")
            for key in missing:
                measure_organisation_at(scene.path, key)
                work.advance(1)
        session.run_again()
