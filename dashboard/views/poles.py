"""Groups of neurons that fire together: find them, look at them, and ablate them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from dashboard.drawing.figures import tree_figure
from dashboard.drawing.legend import colors_of
from dashboard.drawing.tables import typeset
from dashboard.drawing.text import LABELS, neuron_name, number
from dashboard.frame.ablating import show_ablation
from dashboard.frame.exports import offer_figure
from dashboard.frame.naming_field import show_name_field
from dashboard.state import session
from dashboard.state.loading import (
    poles_at,
    tree_at,
)
from dashboard.state.naming import (
    name_pole,
    names_at,
    pole_key,
    pole_label,
    pole_names,
    snippets_at,
    snippets_on_label,
)
from dashboard.state.scene import Scene
from dashboard.state.selection import MOST_CLUSTER_SIZE, MOST_EPSILON, grouping_text
from projector.sites import site_words
from pruning.poles.poles import (
    SELECTIONS,
    SPACES,
    Poles,
    PoleSettings,
    axes_words,
    counts_words,
    finding_words,
)

TITLE, ICON, PATH = "Poles", ":material/bubble_chart:", "poles"
_SPACE_NAMES = {
    "positions": "Map",
    "correlation": "ρ",
    "abs-correlation": "|ρ|: opposite ones too",
}
# Number of members whose strongest example is shown.
_N_SNIPPETS = 3
_DISTINCT_HELP = (
    "yes: in each half of the corpus its ρ inside exceeds that to every other pole, and overall "
    "it exceeds what poles of its size reach in shuffled ρ. weak: it does not."
)
_BEYOND_HELP = (
    "yes: it also exceeds poles of its size in a ρ with the same eigenvalues and random axes. One "
    "dominant axis alone looks like two opposite poles."
)
_AXIS_HELP = "The pole at the other end, where the two are the ends of the leading axis of ρ."
_CONTROLS_HELP = (
    "Both controls go through the same search. Shuffled: the entries of ρ exchanged at random. "
    "Same spectrum: the eigenvalues of ρ kept, its axes rotated at random."
)


def show(scene: Scene) -> None:
    """Draw the page."""
    site = site_words(scene.site)
    st.title(session.plain(f"Poles in layer {scene.layer}: {site}"))
    with session.problems():
        settings = _settings(scene)
        found = poles_at(scene.path, scene.layer, scene.site, scene.layout, settings)
        _show_figures(found)
        if not found.poles:
            st.info(
                "No pole with these settings: lower *Smallest pole*, or choose leaf.",
                icon=":material/bubble_chart:",
            )
            return
        _show_table(scene, found)
        left, right = st.columns([2, 3], gap="large")
        # The tree comes last, because it may take a moment, and the user asked for the pole.
        with right, session.problems():
            pole = session.current().pole
            if pole is None or pole >= len(found.poles):
                st.info(
                    "Choose a pole in the table: it is marked on every page, and you can ablate it "
                    "here.",
                    icon=":material/ads_click:",
                )
            else:
                _show_pole(scene, found, pole)
        with left, session.problems():
            _show_tree(scene, found)


def _show_tree(scene: Scene, found: Poles) -> None:
    with st.spinner("Drawing the condensed tree …"):
        branches = tree_at(scene.path, scene.layer, scene.site, scene.layout, found.settings)
    tree = tree_figure(branches, colors_of(found).tolist(), dark=st.context.theme.type == "dark")
    st.plotly_chart(tree, key="condensed tree")
    offer_figure(tree, f"condensed-tree-layer-{scene.layer}-{scene.site}")


def _settings(scene: Scene) -> PoleSettings:
    """The widgets of the settings, which the link keeps for other pages and people."""
    known = session.pole_settings(scene.projection, scene.layer, scene.site)
    for key, value in (
        ("pole space", known.space),
        ("pole size", known.min_cluster_size),
        ("pole selection", known.selection),
        ("pole epsilon", known.epsilon),
    ):
        session.bind(key, value)
    columns = st.columns([2, 2, 2, 2])
    space = columns[0].selectbox(
        LABELS["space"],
        list(SPACES),
        format_func=_SPACE_NAMES.__getitem__,
        key="pole space",
        on_change=_change_settings,
        help="The distances in which groups are found: distances on the map, as you see them; 1 − "
        "ρ, which no map distorts; or 1 − |ρ|, which also puts neurons that fire against "
        "each other together.",
    )
    size = columns[1].slider(
        LABELS["min_cluster_size"],
        2,
        MOST_CLUSTER_SIZE,
        key="pole size",
        on_change=_change_settings,
        help="Minimum pole size. A smaller number finds more and smaller poles.",
    )
    selection = columns[2].segmented_control(
        LABELS["selection"],
        list(SELECTIONS),
        key="pole selection",
        on_change=_change_settings,
        help="As density rises, groups split into smaller ones. eom (excess of mass) takes those "
        "that last longest, large or small; leaf takes the smallest, at the ends of the tree.",
    )
    epsilon = columns[3].slider(
        LABELS["epsilon"],
        0.0,
        MOST_EPSILON,
        step=0.01,
        key="pole epsilon",
        on_change=_change_settings,
        help="Groups that split at a smaller distance than this stay together; 0 splits all.",
    )
    return PoleSettings(space, size, None, selection or known.selection, epsilon)


def _change_settings() -> None:
    """Take the widgets' values into the selection, before the page runs again."""
    state = st.session_state
    chosen = PoleSettings(
        state["pole space"],
        int(state["pole size"]),
        None,
        # A second click on a segment deselects it.
        state["pole selection"] or PoleSettings().selection,
        float(state["pole epsilon"]),
    )
    session.change(grouping=grouping_text(chosen))


def _show_figures(found: Poles) -> None:
    columns = st.columns(3)
    noise = "–" if found.noise_share is None else f"{found.noise_share:.0%}"
    columns[0].metric("Poles", f"{len(found.poles):,}")
    columns[1].metric("In no pole", noise, help="Noise, as HDBSCAN calls it.")
    validity = "–" if found.validity is None else number(found.validity, "+.2f")
    columns[2].metric(
        "Validity",
        validity,
        help="DBCV, from −1 to 1: how dense poles are inside, and how far apart they are.",
    )
    st.markdown(session.plain(_finding(found)), help=_CONTROLS_HELP)


def _finding(found: Poles) -> str:
    """The number of poles with both controls, and the finding, in one or two sentences."""
    n_poles = _counted(len(found.poles), "pole")
    controls = found.controls
    if controls is None:
        why = found.reasons.get("controls")
        return f"{n_poles}; the controls are not computed{f': {why}' if why else ' yet'}."
    shuffled, spectrum = controls.shuffled, controls.same_spectrum
    if found.n_distinct is None or shuffled.n_distinct is None:
        return (
            f"{n_poles} (shuffled ρ: {number(shuffled.n_poles, '.1f')}, ρ with the same "
            f"spectrum: {number(spectrum.n_poles, '.1f')}). Which are distinct is not known: "
            f"{found.reasons.get('distinct', 'there are no halves of the corpus')}."
        )
    words, axes = finding_words(found), axes_words(found)
    return f"{n_poles}: {counts_words([found])}." + (
        f" This map holds {words}{f'; {axes}' if axes else ''}." if words else ""
    )


def _counted(n: int, what: str) -> str:
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


def _show_table(scene: Scene, found: Poles) -> None:
    """A table with a row per pole, distinct poles first; a click selects a pole."""
    order, poles = found.distinct_first, found.poles
    is_absolute = found.settings.space == "abs-correlation"
    shown = [poles[k] for k in order]
    names = pole_names(scene.path, found, scene.layout)
    number_of = st.column_config.NumberColumn
    text_of = st.column_config.TextColumn
    rows: dict[str, Sequence[Any]] = {
        "pole": list(order),
        "fires on": [names[k] or "–" for k in order],
        "neurons": [pole.size for pole in shown],
        "within": [pole.within_absolute_rho if is_absolute else pole.within_rho for pole in shown],
        "between": [
            pole.between_absolute_rho if is_absolute else pole.between_rho for pole in shown
        ],
        "distinct": [_verdict(pole.distinct, "weak") for pole in shown],
        "beyond": [_verdict(pole.beyond_spectrum, "no") for pole in shown],
        "axis": ["–" if pole.axis is None else f"with {pole.axis}" for pole in shown],
    }
    rho = "|ρ|" if is_absolute else "ρ"
    columns = {
        "pole": number_of("Pole", width=48),
        "fires on": text_of(
            "Fires on",
            width=168,
            help="The name you gave it, or the tokens of its neurons' strongest examples.",
        ),
        "neurons": number_of("Neurons", width=68),
        "within": number_of(
            f"{rho} inside", width=75, help=f"Cohesion: the mean {rho} of two of its neurons."
        ),
        "between": number_of(
            f"{rho} between",
            width=85,
            help=f"The highest mean {rho} between its neurons and those of another pole. "
            f"A pole stands out where {rho} inside is much larger.",
        ),
        "distinct": text_of("Distinct", width=64, help=_DISTINCT_HELP),
        "beyond": text_of("Beyond spectrum", width=120, help=_BEYOND_HELP),
        "axis": text_of("Axis", width=60, help=_AXIS_HELP),
    }
    # The key changes whenever pole numbers belong to other poles.
    map_key = f"{scene.name} {scene.layout} {scene.layer} {scene.site}"
    key = f"poles table {map_key} {found.settings.key} {found.controls is not None}"

    def select() -> None:
        chosen = st.session_state[key]["selection"]["rows"]
        pole = int(order[chosen[0]]) if chosen and chosen[0] < len(order) else None
        session.change(pole=pole, marked=() if pole is None else tuple(_members(found, pole)))

    pole = session.current().pole
    row = [order.index(pole)] if pole is not None and pole < len(poles) else []
    st.dataframe(
        typeset(rows, {"within": ".3f", "between": ".3f"}),
        column_config=columns,
        hide_index=True,
        height=min(360, 37 + 35 * len(poles)),
        on_select=select,
        selection_mode="single-row",
        selection_default={"selection": {"rows": row}},
        key=key,
    )
    if not any(names) and not scene.projection.has_examples:
        st.caption(
            "This projection holds no examples of what its neurons fire on: make it again with "
            "`projector fit`."
        )


def _verdict(passed: bool | None, failed: str) -> str:
    return "–" if passed is None else "yes" if passed else failed


def _members(found: Poles, pole: int) -> list[int]:
    return [int(j) for j in (found.labels == pole).nonzero()[:, 0]]


def _show_pole(scene: Scene, found: Poles, pole: int) -> None:
    members, each = _members(found, pole), found.poles[pole]
    name = pole_names(scene.path, found, scene.layout)[pole]
    st.subheader(session.plain(f"Pole {pole}" + (f": {name}" if name else "")))
    facts = [f"{len(members):,} neurons of {neuron_name(scene.layer, scene.site)}"]
    words = finding_words(found, pole)
    if words:
        facts.append(words)
    if each.opposite is not None and each.opposite_rho is not None:
        rho = number(each.opposite_rho, ".2f")
        facts.append(f"opposite to pole {each.opposite} (ρ {rho})")
    st.markdown(session.plain(" · ".join(facts)))
    _show_snippets(scene, found, pole, members)
    st.caption(
        "Neurons, marked on the map and in the heatmap: "
        + ", ".join(f"N{j}" for j in members[:20])
        + (" …" if len(members) > 20 else "")
    )
    _rename(scene, found, pole)
    show_ablation(scene, members)


def _show_snippets(scene: Scene, found: Poles, pole: int, members: list[int]) -> None:
    """Strongest examples of some neurons, first of those that fire on the pole's label."""
    texts = snippets_at(scene.path, scene.layer, scene.site)
    firing = snippets_on_label(scene.path, found, pole)
    label = pole_label(scene.path, found, pole)
    if label is not None and not label.is_mixed:
        named = session.plain(label.text)
        st.caption(
            f"{len(firing):,} of its {len(members):,} neurons fire on **{named}** in two or more "
            "of their strongest examples" + ("; they come first." if firing else ".")
        )
    firmest = sorted(members, key=lambda j: -float(found.strengths[j]))
    typical = list(dict.fromkeys((*found.poles[pole].exemplars, *firmest)))
    for j in sorted(typical, key=lambda j: j not in firing)[:_N_SNIPPETS]:
        if text := firing.get(j, texts[j]):
            st.caption(f"**N{j}** {session.plain(text)}")


def _rename(scene: Scene, found: Poles, pole: int) -> None:
    """A field for the user's own name."""
    show_name_field(
        f"pole name {scene.name} {scene.layer} {scene.site} {found.settings.key} {pole}",
        names_at(scene.path).poles.get(pole_key(scene.path, found, pole, scene.layout), ""),
        lambda name: name_pole(scene.path, found, pole, name, scene.layout),
    )
