"""How well neurons of one layer match neurons of another layer, with controls."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go
import streamlit as st

from dashboard.across.measures import MEASURES, USUAL_MEASURE, Measure
from dashboard.across.partners import NeuronPair, strongest_pairs
from dashboard.across.pictures import distance_figure, highest, matrix_figure
from dashboard.across.words import levels, summary
from dashboard.components.plot_clicks import hear_clicks
from dashboard.drawing.text import cut_label, number
from dashboard.frame.across.listing import how_to_add
from dashboard.frame.exports import offer_figure
from dashboard.state import session
from dashboard.state.loading import of_projection
from dashboard.state.naming import described_at
from dashboard.state.scene import Scene
from projector.projection.projection import Projection
from projector.statistics.cross_layer.records import SITE, CrossLayerFacts, LayerPair

TITLE, ICON, PATH = "Across layers", ":material/hub:", "across"
_MEASURE, _BETWEEN = "across statistic", "across layers"
_MOST_PAIRS, _MOST_LABEL = 10, 30
# Most pairs with the same neuron of the earlier layer.
_MOST_EACH = 2
# Pixels by which a matrix is higher than wide, and the first matrix's maximum height.
_AROUND, _MOST_HEIGHT = 40, 520

# Columns of the table of pairs: ρ, and both neurons. All links lead to one page, so they have no
# icon.
_WIDTHS = [1, 5, 5]
_LINKS_STYLE = """<style>
.st-key-pairs-of-neurons a > span:has([data-testid='stIconMaterial']) { display: none; }
</style>"""


def show(scene: Scene) -> None:
    """Draw the page."""
    st.title("Neurons that correlate across layers")
    facts, lacks = scene.projection.cross_layer, how_to_add(scene)
    st.caption(
        "Does a neuron of one layer fire as a neuron of another layer does? For every two layers, "
        "the matrix shows how strongly the neurons of the later layer (MLP neurons) correlate with "
        "their best partner in the earlier layer."
    )
    if facts is None:
        st.info(lacks or "", icon=":material/hub:")
        return
    if not facts.pairs:
        st.info(
            "This projection has MLP neurons of one layer only, so there is no other layer to "
            "compare them with.",
            icon=":material/hub:",
        )
        return
    measure = _choose_measure()
    pair = _choose_pair(facts)
    with session.problems():
        _show_matrices(scene, facts, measure, pair)
    with session.problems():
        _show_pair(scene, facts, pair)
    with session.problems():
        st.subheader(
            "By the distance between layers",
            help="The mean over all pairs of layers that are equally far apart. Far distances have "
            "few pairs: point at a mark to see how many.",
        )
        figure = distance_figure(facts, measure)
        st.plotly_chart(figure, key="across distance", config={"displayModeBar": False})
        offer_figure(figure, f"{_stem(scene)}-distance")


def _choose_measure() -> Measure:
    chosen = session.current().statistic
    if chosen is not None and chosen not in MEASURES:
        usual = MEASURES[USUAL_MEASURE].label
        session.note(f"This page has no statistic '{chosen[:40]}': '{usual}' is shown.")
        session.change(statistic=None)
        chosen = None
    session.bind(_MEASURE, chosen or USUAL_MEASURE)

    def change() -> None:
        name = st.session_state[_MEASURE]
        session.change(statistic=None if name == USUAL_MEASURE else name)

    name = st.segmented_control(
        "Statistic",
        list(MEASURES),
        format_func=lambda each: MEASURES[each].label,
        key=_MEASURE,
        required=True,
        on_change=change,
        help="\n\n".join(f"- **{each.label}**: {each.help}" for each in MEASURES.values()),
    )
    return MEASURES[str(name)]


def _choose_pair(facts: CrossLayerFacts) -> LayerPair:
    """The two chosen layers: those of the link, or the strongest pair."""
    chosen = session.current().between
    known = {_text(pair): pair for pair in facts.pairs}
    if chosen is not None and chosen not in known:
        session.note(
            f"This projection has no pair of layers '{chosen[:40]}': the strongest pair is shown."
        )
        session.change(between=None)
        chosen = None
    return known[chosen] if chosen else (facts.strongest(1) or [facts.pairs[0]])[0]


def _text(pair: LayerPair) -> str:
    """Two layers in a link."""
    return f"{pair.earlier}-{pair.later}"


def _show_matrices(scene: Scene, facts: CrossLayerFacts, measure: Measure, pair: LayerPair) -> None:
    st.markdown(session.plain(summary(facts, measure)))
    limit, first, *others = highest(facts, measure), *measure.panels
    left, right = st.columns([3, 2])
    with left:
        figure = _show_matrix(facts, measure, first, limit, pair, 0)
    with right:
        for k, title in enumerate(others, 1):
            _show_matrix(facts, measure, title, limit, pair, k)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(
            "Click a cell to list the two layers' neurons below. All matrices have one colour "
            f"scale. {measure.controls} Over {facts.n_tokens:,} tokens.",
            width="stretch",
        )
        offer_figure(figure, _stem(scene))


def _stem(scene: Scene) -> str:
    return f"{scene.name.replace('/', '-')}-across-layers"


def _show_matrix(
    facts: CrossLayerFacts,
    measure: Measure,
    title: str,
    limit: float,
    pair: LayerPair,
    number_: int,
) -> go.Figure:
    """Draw one matrix, whose clicks choose two layers, and return it."""
    dark = st.context.theme.type == "dark"
    figure = matrix_figure(facts, measure, title, limit, pair, dark=dark)
    layers = facts.layers

    def pick(row: int, column: int) -> None:
        # The first row belongs to the second layer.
        if 0 <= column <= row < len(layers) - 1:
            session.change(between=f"{layers[column]}-{layers[row + 1]}")

    inside = f"across_{number_}"
    st.html(_style(inside, _MOST_HEIGHT if not number_ else _MOST_HEIGHT // 2))
    with st.container(key=inside):
        st.plotly_chart(
            figure, key=f"across {title}", height="stretch", config={"displayModeBar": False}
        )
    hear_clicks(inside, pick)
    return figure


def _style(inside: str, most: int) -> str:
    """CSS for a height at which the square picture fills the width."""
    block = f".st-key-{inside}"
    height = f"clamp(200px, 100cqw + {_AROUND}px, {most}px)"
    return (
        f"<style>{block} {{ container-type: inline-size; }} "
        f"{block} > :has([data-testid='stPlotlyChart']) {{ flex: none; height: {height}; }}</style>"
    )


def _show_pair(scene: Scene, facts: CrossLayerFacts, pair: LayerPair) -> None:
    """Show the figures of two layers, and their strongest pairs of neurons."""
    known = {_text(each): each for each in facts.pairs}
    session.bind(_BETWEEN, _text(pair))
    title, field = st.columns([3, 1], vertical_alignment="bottom")
    title.subheader(f"Layers {pair.earlier} and {pair.later}")
    field.selectbox(
        "Pair of layers",
        list(known),
        format_func=lambda each: f"{known[each].earlier} and {known[each].later}",
        key=_BETWEEN,
        on_change=lambda: session.change(between=st.session_state[_BETWEEN]),
    )
    st.markdown(session.plain(levels(pair)))
    found = of_projection(
        "pairs across layers",
        scene.path,
        pair.earlier,
        pair.later,
        make=lambda projection: _strongest(projection, pair),
    )
    if not found:
        st.caption(
            f"No pair of neurons to list: for every neuron of these layers, {facts.n_partners} "
            "neurons of other layers are stronger partners."
            if pair.reason is None
            else "No pair of neurons to list."
        )
        return
    _show_table(scene, pair, found)
    st.caption(
        f"The pairs with the highest |ρ|. The projection keeps the {facts.n_partners} best "
        "partners of each neuron in earlier layers, and as many in later layers. Each neuron of "
        f"layer {pair.earlier} is listed at most twice, because a neuron that fires on a frequent "
        "token may be the best partner of many."
    )


def _strongest(projection: Projection, pair: LayerPair) -> tuple[NeuronPair, ...]:
    layers = (pair.earlier, pair.later)
    ends = (projection.partners(pair.earlier), projection.partners(pair.later))
    return strongest_pairs(layers, *ends, _MOST_PAIRS, _MOST_EACH)


def _show_table(scene: Scene, pair: LayerPair, found: Sequence[NeuronPair]) -> None:
    """A table with a row per pair of neurons: ρ, and links to both with what they fire on."""
    sides = []
    for layer, neurons in (
        (pair.earlier, tuple(each.earlier for each in found)),
        (pair.later, tuple(each.later for each in found)),
    ):
        told = described_at(scene.path, layer, SITE, neurons)
        sides.append([(layer, neuron, *each) for neuron, each in zip(neurons, told, strict=True)])
    with st.container(gap=None, key="pairs of neurons"):
        st.html(_LINKS_STYLE)
        heads = st.columns(_WIDTHS)
        for head, words in zip(
            heads, ("ρ", f"Layer {pair.earlier}", f"Layer {pair.later}"), strict=True
        ):
            head.markdown(f"**{words}**")
        for each, *ends in zip(found, *sides, strict=True):
            columns = st.columns(_WIDTHS, vertical_alignment="center")
            columns[0].markdown(f"{number(each.rho, '+.2f')}")
            for column, (layer, neuron, label, snippet) in zip(columns[1:], ends, strict=True):
                words = f"L{layer} N{neuron}"
                words += f" {session.plain(cut_label(label, _MOST_LABEL))}" if label else ""
                with column:
                    session.show_link(
                        "neuron",
                        words,
                        help=session.plain(snippet) or None,
                        layer=layer,
                        site=SITE,
                        neuron=neuron,
                    )
