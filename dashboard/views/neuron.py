"""One neuron: what it fires on, the neurons it fires with, and what it writes."""

from __future__ import annotations

import streamlit as st

from dashboard.drawing.figures import histogram_figure
from dashboard.drawing.text import (
    color_scale,
    colored_tokens,
    neuron_name,
    number,
    written_list,
)
from dashboard.frame import asking
from dashboard.frame.across.listing import show_partners
from dashboard.frame.exports import offer_figure
from dashboard.frame.naming_field import show_name_field
from dashboard.frame.neuron_text import show_text
from dashboard.frame.residual.neuron_weights import show_reads_and_writes
from dashboard.neuron_facts import Neighbour, Written, histogram, neighbours, written
from dashboard.prompts import Prompt
from dashboard.state import session
from dashboard.state.loading import (
    correlation_at,
    fact_of,
    moments_at,
    poles_at,
)
from dashboard.state.naming import (
    computed_labels_at,
    labels_at,
    name_neuron,
    names_at,
    pole_names,
)
from dashboard.state.scene import Scene
from projector.errors import UserError
from projector.model.prompting import clean, is_empty
from projector.naming.labels import LOWEST, Label
from projector.statistics.examples import Examples

TITLE, ICON, PATH = "Neuron", ":material/radio_button_checked:", "neuron"
# Pixels of a list of tokens with numbers.
_LIST_WIDTH = 180
_N_NEIGHBOURS, _N_OPPOSITES = 10, 5
_MOST_LABEL = 36
# Links to this page would be drawn as the open page.
_STYLE = """<style>
:is([class*='st-key-neighbours'], [class*='st-key-partners'], .st-key-later-readers) {
  a { background: none; padding: 0 0.25rem; margin: 0; }
  a > span:has([data-testid='stIconMaterial']) { display: none; }
  a p { font-weight: 400; }
}
</style>"""
_TYPED, _TRIED = "text to try", "tried text"


def show(scene: Scene) -> None:
    """Draw the page."""
    neuron = session.current().neuron
    if neuron is None:
        st.title("No neuron chosen")
        st.info(
            "Click a point on the map, or type a neuron such as L3 N345 into the search field.",
            icon=":material/touch_app:",
        )
        return
    st.html(_STYLE)
    labels = computed_labels_at(scene.path, scene.layer, scene.site)
    label = labels[neuron] if labels else None
    _show_head(scene, neuron, label)
    with session.problems():
        _show_trial(scene, neuron)
    left, right = st.columns([3, 2], gap="large")
    with right:
        with session.problems():
            _show_figures(scene, neuron)
        with session.problems():
            _show_neighbours(scene, neuron)
        # Filled last, because it loads the model; everything else is drawn before.
        vocabulary = st.container()
    with left, session.problems():
        examples = show_text(scene, neuron, 1 if label is None else label.sign)
        if examples is not None:
            _show_histogram(scene, neuron, examples)
    with session.problems():
        show_partners(scene, neuron)
    with vocabulary, session.problems():
        _show_written(scene, neuron)
    with session.problems():
        show_reads_and_writes(scene, neuron)


def _show_head(scene: Scene, neuron: int, label: Label | None) -> None:
    """Its name, what it fires on, and links to the previous and the next neuron."""
    title, before, after = st.columns([8, 1, 1], vertical_alignment="center")
    title.title(f"{neuron_name(scene.layer, scene.site)} N{neuron}")
    for column, step, icon, key in (
        (before, -1, "chevron_left", "Left"),
        (after, 1, "chevron_right", "Right"),
    ):
        other = neuron + step
        column.button(
            "",
            key=f"neuron {key}",
            icon=f":material/{icon}:",
            help="Previous neuron" if step < 0 else "Next neuron",
            shortcut=key,
            disabled=not 0 <= other < scene.n_neurons,
            on_click=lambda other=other: session.change(neuron=other),
            width="stretch",
        )
    fires, name = st.columns([3, 2], vertical_alignment="center", gap="large")
    if label is not None:
        text, end = (
            label.text.removesuffix(LOWEST),
            "" if label.sign > 0 else " with its lowest activations",
        )
        fires.markdown(f"Fires on **{session.plain(text)}**{end}", help=label.in_words)
    with name, session.problems():
        _show_name(scene, neuron)
    state = (
        "is dead: its activation never varies over the corpus"
        if neuron in scene.dead
        else "isn't finite on some token of the corpus"
        if neuron in scene.nonfinite
        else None
    )
    if state:
        st.warning(f"This neuron {state}.", icon=":material/do_not_disturb_on:")


def _show_name(scene: Scene, neuron: int) -> None:
    """A field for the user's own name."""
    show_name_field(
        f"name of {scene.layer} {scene.site} {neuron}",
        names_at(scene.path).of_neuron(scene.layer, scene.site, neuron) or "",
        lambda name: name_neuron(scene.path, scene.layer, scene.site, neuron, name),
    )


def _show_figures(scene: Scene, neuron: int) -> None:
    columns = st.columns(2)
    if scene.projection.has_statistics_of(scene.layer, scene.site):
        mean, spread = moments_at(scene.path, scene.layer, scene.site)
        columns[0].metric("Mean", number(mean[neuron]), help="Mean activation over the corpus.")
        columns[1].metric(
            "Std. dev.",
            number(spread[neuron]),
            help="Standard deviation of its activation over the corpus.",
        )
    settings = session.pole_settings(scene.projection, scene.layer, scene.site)
    poles = poles_at(scene.path, scene.layer, scene.site, scene.layout, settings)
    pole = int(poles.labels[neuron])
    if pole < 0:
        st.caption("In no pole with the current settings.")
        return
    label = pole_names(scene.path, poles, scene.layout)[pole]
    words = f"Pole {pole}: " + (f"**{session.plain(label)}**, " if label else "")
    words += f"{poles.poles[pole].size:,} neurons"
    with st.container(horizontal=True):
        session.show_link(
            "poles",
            words,
            pole=pole,
            marked=(),
            help=f"How firmly the neuron belongs to it: {poles.strengths[neuron]:.0%}.",
        )
        session.show_link("map", "Show on the map", pole=pole, marked=())


def _show_neighbours(scene: Scene, neuron: int) -> None:
    rho = correlation_at(scene.path, scene.layer, scene.site)
    highest, lowest = neighbours(rho, neuron, _N_NEIGHBOURS)
    names = labels_at(scene.path, scene.layer, scene.site)
    st.subheader("Neighbours", help="By ρ over the corpus, not by distance on the map.")
    for title, found in (
        ("Most correlated", highest),
        ("Most anti-correlated", lowest[:_N_OPPOSITES]),
    ):
        with st.container(gap=None, key=f"neighbours {title}"):
            st.markdown(f"**{title}**")
            for each in found:
                _show_neighbour(each, names[each.neuron])
            if not found:
                st.caption("None.")


def _show_neighbour(each: Neighbour, label: str) -> None:
    short = label if len(label) <= _MOST_LABEL else label[: _MOST_LABEL - 1] + "…"
    words = f"N{each.neuron} :gray[{number(each.rho, '.2f')}] {session.plain(short)}"
    session.show_link("neuron", words.rstrip(), neuron=each.neuron)


def _show_histogram(scene: Scene, neuron: int, examples: Examples) -> None:
    found = histogram(examples, neuron)
    figure = histogram_figure(found.counts, found.edges)
    st.subheader("Distribution of its activation")
    st.caption(f"Over {len(examples.sample_at):,} tokens, sampled evenly from the text.")
    st.plotly_chart(figure, key="histogram")
    offer_figure(figure, f"histogram-{scene.layer}-{scene.site}-{neuron}")


def _show_trial(scene: Scene, neuron: int) -> None:
    """The user's own text, with the neuron's activation on every token."""
    state = st.session_state
    field, button = st.columns([6, 1], vertical_alignment="bottom")
    field.text_area(
        "Try your own text",
        key=_TYPED,
        height=68,
        placeholder="Type a text to see this neuron's activation on each of its tokens.",
        on_change=session.keep(_TYPED, ""),
    )
    button.button("Run", key="try text", width="stretch", on_click=_try)
    tried = state.get(_TRIED)
    if not tried:
        return
    try:
        run = asking.run(scene, Prompt(clean(tried)), lambda: state.pop(_TRIED, None))
    except UserError:
        # Report an error once; otherwise it would appear at every click.
        state.pop(_TRIED, None)
        raise
    values = run.activations[scene.layer, scene.site][:, neuron].astype(float)
    # Many models have far larger activations on the first token than on all others.
    shown = abs(values[1:] if len(values) > 1 else values)
    scale = float(shown.max(initial=0.0)) or 1.0
    st.html(colored_tokens([piece.text for piece in run.pieces], values.tolist(), scale))
    st.html(color_scale("Activation", scale))


def _try() -> None:
    typed = st.session_state.get(_TYPED) or ""
    st.session_state[_TRIED] = None if is_empty(typed) else typed


def _show_written(scene: Scene, neuron: int) -> None:
    if scene.site != "mlp_post":
        return
    st.subheader(
        "Effect on the vocabulary",
        help="How much one unit of its activation adds to each token's logit: its output weights "
        "times the unembedding, minus the mean over all tokens. Later layers and the final norm "
        "are ignored.",
    )
    if not scene.projection.facts.model.is_causal:
        st.caption(
            "An encoder has another layer between its neurons and the vocabulary, so the effect "
            "of one neuron can't be read from its weights."
        )
        return

    def make() -> tuple[list[Written], ...]:
        with scene.model() as guest:
            return written(guest, scene.layer, neuron)

    promoted, suppressed = fact_of(("written", scene.sha256, scene.layer, neuron), make)
    # One below the other on a narrow page, so that no token is cut.
    with st.container(horizontal=True):
        for title, found in (("Promotes", promoted), ("Suppresses", suppressed)):
            with st.container(width=_LIST_WIDTH):
                st.markdown(f"**{title}**")
                st.html(written_list([(each.text, each.effect) for each in found]))
