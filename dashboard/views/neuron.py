"""The card of one neuron."""

from __future__ import annotations

import json

import streamlit as st

from dashboard.drawing.figures import histogram_figure
from dashboard.drawing.text import colored_tokens, neuron_name, number
from dashboard.frame.exports import offer_figure
from dashboard.frame.work import working
from dashboard.neuron_facts import (
    Excerpt,
    Neighbour,
    Written,
    histogram,
    neighbours,
    places,
    read_excerpts,
    written,
)
from dashboard.state import session
from dashboard.state.loading import (
    correlation_at,
    examples_at,
    examples_stamp,
    fact_of,
    moments_at,
    poles_at,
)
from dashboard.state.scene import Scene
from dashboard.state.store import examples_name, stored_examples
from projector.corpus.sources import find_source, sources_hint
from projector.corpus.tokens import DEFAULT_SEQUENCE_LENGTH, read_corpus
from projector.errors import UserError
from projector.model.context import find_context
from projector.statistics.examples import Examples, gather_examples
from projector.storage.places import disk_errors

TITLE, ICON, PATH = "Neuron", ":material/radio_button_checked:", "neuron"
_TOKENS = 50_000


def show(scene: Scene) -> None:
    """Draw the page."""
    neuron = session.current().neuron
    if neuron is None:
        st.title("No neuron yet")
        st.info(
            "Click a point on the map, or find one there by its name, such as L3 N345.",
            icon=":material/touch_app:",
        )
        return
    st.title(f"{neuron_name(scene.layer, scene.site)} N{neuron}")
    state = (
        "dead: it never varies over the corpus"
        if neuron in scene.dead
        else "not finite on some token of the corpus"
        if neuron in scene.nonfinite
        else None
    )
    if state:
        st.warning(f"This neuron is {state}.", icon=":material/do_not_disturb_on:")
    left, right = st.columns([3, 2], gap="large")
    # What is there at once stands there before the model is asked.
    with right:
        with session.problems():
            _show_figures(scene, neuron)
        with session.problems():
            _show_neighbours(scene, neuron)
        with session.problems():
            _show_written(scene, neuron)
    with left, session.problems():
        _show_examples(scene, neuron)


def _show_figures(scene: Scene, neuron: int) -> None:
    columns = st.columns(3)
    if scene.projection.has_statistics_of(scene.layer, scene.site):
        mean, spread = moments_at(scene.path, scene.layer, scene.site)
        columns[0].metric(
            "Mean",
            number(mean[neuron]),
            help="Of its activation over the corpus.",
        )
        columns[1].metric(
            "Deviation", number(spread[neuron]), help="Standard deviation over the corpus."
        )
    poles = poles_at(
        scene.path,
        scene.layer,
        scene.site,
        scene.layout,
        session.pole_settings(scene.projection, scene.layer, scene.site),
    )
    pole = int(poles.labels[neuron])
    text = "none" if pole < 0 else f"{pole}"
    columns[2].metric(
        "Pole",
        text,
        help="The group of neurons that it fires with."
        if pole < 0
        else f"One of {poles.poles[pole].size} neurons; strength {poles.strengths[neuron]:.0%}.",
    )
    if pole >= 0 and st.button("Show its pole on the map", icon=":material/bubble_chart:"):
        session.change(pole=pole, marked=())
        session.go("map")


def _show_neighbours(scene: Scene, neuron: int) -> None:
    rho = correlation_at(scene.path, scene.layer, scene.site)
    highest, lowest = neighbours(rho, neuron)
    st.subheader("Fires with, and against", help="By ρ over the corpus, not by the picture.")
    columns = st.columns(2)
    for column, title, found in (
        (columns[0], "Most correlated", highest),
        (columns[1], "Most anti-correlated", lowest),
    ):
        with column:
            st.caption(title)
            _list(found, title)


def _list(found: list[Neighbour], name: str) -> None:
    event = st.dataframe(
        {
            "neuron": [f"N{each.neuron}" for each in found],
            "ρ": [each.rho for each in found],
        },
        column_config={"ρ": st.column_config.NumberColumn(format="%.3f")},
        hide_index=True,
        on_select="rerun",
        selection_mode="single-cell",
        key=f"{name} {session.current().neuron}",
        height="content",
    )
    cells = event.selection.cells
    if cells:
        session.change(neuron=found[cells[0][0]].neuron)
        st.rerun()


def _show_written(scene: Scene, neuron: int) -> None:
    if scene.site != "mlp_post":
        return
    st.subheader(
        "Writes to the vocabulary",
        help="What one unit of its activation adds to each token's logit through its output "
        "weights and the unembedding, the mean over tokens taken out; what later layers and the "
        "last norm do is left out.",
    )

    if not scene.projection.facts.model.is_causal:
        st.caption(
            "Between an encoder's stream and its vocabulary stands more than a matrix: what one "
            "neuron does to a token can't be told from weights."
        )
        return

    def make() -> tuple[list[Written], ...]:
        with scene.model() as guest:
            return written(guest, scene.layer, neuron)

    promoted, suppressed = fact_of(("written", scene.sha256, scene.layer, neuron), make)
    columns = st.columns(2)
    _show_tokens(columns[0], "Promotes", promoted)
    _show_tokens(columns[1], "Suppresses", suppressed)


def _show_tokens(
    column: st.delta_generator.DeltaGenerator, title: str, found: list[Written]
) -> None:
    column.caption(title)
    column.dataframe(
        {
            "token": [json.dumps(t.text, ensure_ascii=False) for t in found],
            "logit": [t.effect for t in found],
        },
        column_config={"logit": st.column_config.NumberColumn(format="%.4f")},
        hide_index=True,
        # All of it: a table that scrolls within a page that scrolls hides its rows.
        height="content",
    )


def _show_examples(scene: Scene, neuron: int) -> None:
    st.subheader("What drives it")
    examples = examples_at(scene.sha256, scene.layer, scene.site)
    asks = f"other text {scene.sha256} {scene.layer} {scene.site}"
    if examples is None or st.session_state.get(asks):
        corpus = scene.projection.facts.corpus
        source = "stdlib" if corpus is None else corpus.source
        st.write(
            f"The model reads {_TOKENS:,} tokens once for all neurons of this layer and site; the "
            "result is kept."
        )
        columns = st.columns([3, 1], vertical_alignment="bottom")
        chosen = columns[0].text_input(
            "Text",
            value=source if find_source(source).local_path is None else "",
            placeholder=sources_hint(),
            key="examples source",
            help="As for `projector fit --corpus`; files and folders below the folders the app was "
            "started with.",
        )
        if columns[1].button("Read", type="primary", key="read examples"):
            _keep(scene, _gather(scene, chosen))
            st.session_state[asks] = False
            st.rerun()
        if examples is None:
            return
    found = histogram(examples, neuron)
    figure = histogram_figure(found.counts, found.edges)
    text = "a text" if examples.source is None else f"**{session.plain(examples.source)}**"
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(
            f"Activations on {len(examples.sample_at):,} tokens, drawn evenly from "
            f"{len(examples.ids):,} of {text}; those of the lists below are from all of it.",
            width="stretch",
        )
        if not st.session_state.get(asks) and st.button("Read other text", key="read other"):
            st.session_state[asks] = True
            st.rerun()
    st.plotly_chart(figure, key="histogram")
    offer_figure(figure, f"histogram-{scene.layer}-{scene.site}-{neuron}")
    wanted = places(examples, neuron)
    kinds = ["highest", "lowest", "quantiles", "at random"]
    kind = st.segmented_control("Tokens", kinds, default="highest", key="examples kind")
    wanted = [
        each
        for each in wanted
        if each.group == kind or (kind == "quantiles" and each.group.endswith("quantile"))
    ]

    def make() -> list[Excerpt]:
        with working("Reading") as work, scene.model() as guest:
            work.begin("Reading", len(wanted), "excerpts")
            return read_excerpts(
                guest, examples, scene.layer, scene.site, neuron, wanted, advance=work.advance
            )

    stamp = examples_stamp(scene.sha256, scene.layer, scene.site)
    key = ("excerpts", scene.sha256, scene.layer, scene.site, neuron, kind, stamp)
    _show_excerpts(fact_of(key, make))


def _show_excerpts(excerpts: list[Excerpt]) -> None:
    scale = max((abs(v) for each in excerpts for v in each.values), default=1.0)
    for each in excerpts:
        label = f"**{number(each.place.value, '+.3g')}**"
        if each.place.group.endswith("quantile"):
            label += f" at the {each.place.group}"
        st.markdown(label)
        st.html(colored_tokens(each.texts, each.values, scale, each.focus))


def _keep(scene: Scene, examples: Examples) -> None:
    folder = stored_examples()
    with (
        disk_errors(folder.path),
        folder.writing(examples_name(scene.sha256, scene.layer, scene.site)) as path,
    ):
        examples.save(path)


def _gather(scene: Scene, source: str) -> Examples:
    if not source.strip():
        raise UserError(f"no text is named: write {sources_hint()}")
    source = scene.settings.text_source(source.strip())
    with working("Reading text") as work, scene.model() as guest:
        work.begin("Reading text", None, "documents")
        most = find_context(guest.loaded.model, guest.loaded.tokenizer)
        corpus = read_corpus(
            source,
            guest.loaded.tokenizer,
            sequence_length=min(DEFAULT_SEQUENCE_LENGTH, most or DEFAULT_SEQUENCE_LENGTH),
            max_tokens=_TOKENS,
            skip_first=int(guest.architecture.is_causal),
            packed=guest.architecture.is_causal,
            advance=work.advance,
        )
        work.begin("Running the model", corpus.n_sequences, "sequences")
        return gather_examples(
            guest.loaded.model,
            guest.architecture,
            corpus,
            scene.layer,
            scene.site,
            advance=work.advance,
        )
