"""Groups of neurons that fire together: found live, looked at, and taken away."""

from __future__ import annotations

import json

import streamlit as st

from dashboard import ablation
from dashboard.drawing.figures import tree_figure
from dashboard.drawing.tables import typeset
from dashboard.drawing.text import LABELS, neuron_name, number, page_text
from dashboard.frame.exports import offer_figure
from dashboard.frame.work import Within, working
from dashboard.prompts import as_it_can, encode, recall
from dashboard.state import session
from dashboard.state.loading import (
    evaluation_of,
    examples_at,
    examples_stamp,
    fact_of,
    known_ablation,
    make_ablation,
    moments_at,
    poles_at,
    tree_at,
)
from dashboard.state.scene import Scene
from dashboard.state.selection import MOST_CLUSTER_SIZE, MOST_EPSILON, grouping_text
from dashboard.state.store import stored_prompts
from projector.corpus.sources import sources_hint
from projector.errors import UserError
from projector.model.context import find_context
from projector.sites import site_words
from pruning.poles.poles import SELECTIONS, SPACES, Poles, PoleSettings
from pruning.preparing import usual_texts
from pruning.scoring.windows import EvaluationText, prepare

TITLE, ICON, PATH = "Poles", ":material/bubble_chart:", "poles"
_SPACE_NAMES = {
    "positions": "Map",
    "correlation": "ρ",
    "abs-correlation": "|ρ|: opposite ones too",
}
_N_WINDOWS = 16


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
                "No pole with these settings: make the fewest neurons smaller, or choose leaf.",
                icon=":material/bubble_chart:",
            )
            return
        _show_table(scene, found)
        left, right = st.columns([2, 3], gap="large")
        with left, session.problems():
            tree = tree_figure(tree_at(scene.path, scene.layer, scene.site, scene.layout, settings))
            st.plotly_chart(tree, key="condensed tree")
            offer_figure(tree, f"condensed-tree-layer-{scene.layer}-{scene.site}")
        with right:
            pole = session.current().pole
            if pole is None or pole >= len(found.poles):
                st.info(
                    "Choose a pole in the table: it is marked on every page, and the model can be "
                    "asked what it says without it.",
                    icon=":material/ads_click:",
                )
            else:
                _show_pole(scene, found, pole)


def _settings(scene: Scene) -> PoleSettings:
    """The settings' widgets; they stand in the link, for other pages and people."""
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
        help="Between which distances groups are looked for: those on the map, which is what is "
        "seen; 1 − ρ itself, which no map distorts; or 1 − |ρ|, where neurons that fire against "
        "each other are together too.",
    )
    size = columns[1].slider(
        LABELS["min_cluster_size"],
        2,
        MOST_CLUSTER_SIZE,
        key="pole size",
        on_change=_change_settings,
        help="Smaller groups are not poles: a smaller number finds more and smaller poles.",
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
        # A segment that is clicked again is let go of.
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
        help="DBCV, from −1 to 1: how dense poles are inside, and how far apart.",
    )


def _show_table(scene: Scene, found: Poles) -> None:
    """A row a pole; the one that is chosen is the selection's."""
    poles = found.poles
    responds = _responds(scene, found)
    rho = st.column_config.NumberColumn
    rows = {
        "pole": list(range(len(poles))),
        "neurons": [pole.size for pole in poles],
        "within": [pole.within_rho for pole in poles],
        "nearest": [pole.between_rho for pole in poles],
        "opposite": [pole.opposite for pole in poles],
        "opposed": [pole.opposite_rho for pole in poles],
        "exemplars": [", ".join(f"N{j}" for j in pole.exemplars[:4]) for pole in poles],
        "responds": responds or [],
    }
    columns = {
        "pole": rho("Pole", width=60),
        "neurons": rho("Neurons", width=80),
        "within": rho("ρ inside", width=90, help="Cohesion: the mean ρ of two of its neurons."),
        "nearest": rho(
            "ρ to nearest pole",
            width=135,
            help="The mean ρ of one of its neurons and one of another pole, for the pole where "
            "that is highest. A pole stands out where ρ inside is much larger.",
        ),
        "opposite": rho(
            "Opposite pole", width=110, help="The pole for which that mean ρ is lowest."
        ),
        "opposed": rho("ρ to opposite", width=115, help="That lowest mean ρ."),
        "exemplars": st.column_config.TextColumn(
            "Exemplars", width=190, help="Neurons that stand for it, most central first."
        ),
        "responds": st.column_config.TextColumn(
            "Its first exemplar responds to",
            help="The tokens of the text that was read on which it is highest, in quotes.",
        ),
    }
    if responds is None:
        del rows["responds"]
    # A table is another one wherever a pole's number is another pole.
    map_key = f"{scene.name} {scene.layout} {scene.layer} {scene.site}"
    key = f"poles table {map_key} {found.settings.key}"

    def select() -> None:
        chosen = st.session_state[key]["selection"]["rows"]
        pole = int(chosen[0]) if chosen and chosen[0] < len(poles) else None
        session.change(pole=pole, marked=() if pole is None else tuple(_members(found, pole)))

    pole = session.current().pole
    st.dataframe(
        typeset(rows, {"within": ".3f", "nearest": ".3f", "opposite": ".0f", "opposed": ".3f"}),
        column_config=columns,
        hide_index=True,
        height=min(360, 37 + 35 * len(poles)),
        on_select=select,
        selection_mode="single-row",
        selection_default={
            "selection": {"rows": [] if pole is None or pole >= len(poles) else [pole]}
        },
        key=key,
    )
    if responds is None:
        st.caption(
            "Once text was read on the card of a neuron of this layer and site, the table tells "
            "what each pole's exemplar responds to."
        )


def _members(found: Poles, pole: int) -> list[int]:
    return [int(j) for j in (found.labels == pole).nonzero()[:, 0]]


def _responds(scene: Scene, found: Poles) -> list[str] | None:
    """Of each pole, tokens on which its first exemplar is highest; None where no text was read."""
    examples = examples_at(scene.sha256, scene.layer, scene.site)
    if examples is None:
        return None

    def make() -> list[str]:
        with scene.model() as guest:
            decode = guest.loaded.tokenizer.decode
            return [
                "  ".join(
                    json.dumps(decode(examples.ids[int(at)].tolist()), ensure_ascii=False)
                    for at in examples.highest_at[pole.exemplars[0]][:4]
                    if at >= 0
                )
                for pole in found.poles
            ]

    first = tuple(pole.exemplars[0] for pole in found.poles)
    stamp = examples_stamp(scene.sha256, scene.layer, scene.site)
    return fact_of(("responds", scene.sha256, scene.layer, scene.site, first, stamp), make)


def _show_pole(scene: Scene, found: Poles, pole: int) -> None:
    members = _members(found, pole)
    st.subheader(f"Pole {pole}: {len(members):,} neurons of {neuron_name(scene.layer, scene.site)}")
    st.caption(
        "Marked on the map and in the heatmap: "
        + ", ".join(f"N{j}" for j in members[:20])
        + (" …" if len(members) > 20 else "")
    )
    _ablate(scene, members)


def _ablate(scene: Scene, members: list[int]) -> None:
    st.markdown("**Take it away**")
    kind = st.segmented_control(
        "How",
        list(ablation.KINDS),
        format_func=ablation.KINDS.__getitem__,
        default="mean",
        key="ablation kind",
    )
    columns = st.columns([3, 1], vertical_alignment="bottom")
    texts = usual_texts(scene.model_name)
    source = columns[0].text_input(
        "Text to score on",
        value="" if texts is None else texts.evaluation,
        placeholder=sources_hint(),
        key="ablation text",
    )
    # The model without these neurons, and means of this projection, whoever calls them what pole.
    key = (
        *(scene.path, scene.sha256, scene.layer, scene.site, tuple(members), kind, source),
        session.current().prompt,
    )
    if columns[1].button("Ablate", type="primary", key="ablate", width="stretch"):
        with session.problems():
            make_ablation(key, lambda: _outcomes(scene, members, kind or "mean", source))
    outcomes = known_ablation(key)
    if outcomes is not None:
        _show_outcomes(outcomes)


def _outcomes(scene: Scene, members: list[int], kind: str, source: str) -> list[ablation.Outcome]:
    chosen = session.current()
    prompt = None if chosen.prompt is None else recall(chosen.prompt, stored_prompts())
    gone = {*scene.dead, *scene.nonfinite}
    means = None
    if kind == "mean":
        means = moments_at(scene.path, scene.layer, scene.site)[0]
    with working("Ablating") as work, scene.model() as guest:
        if not guest.architecture.is_causal:
            raise UserError(
                "an encoder has no perplexity and goes on with no text, and those are what an "
                "ablation is seen by"
            )
        if prompt is not None:
            try:
                encode(guest, as_it_can(guest, prompt))
            except UserError as error:
                # It was chosen on another page, and is no reason not to score the text.
                st.warning(
                    session.plain(f"Without the prompt of the Prompt page: {page_text(error)}")
                )
                prompt = None
        text: EvaluationText | None = None
        if source.strip():
            where = scene.settings.text_source(source.strip())

            def make() -> EvaluationText:
                tokenizer = guest.loaded.tokenizer
                context = find_context(guest.loaded.model, tokenizer)
                return prepare(where, tokenizer, context, max_windows=_N_WINDOWS, progress=work)

            text = evaluation_of(where, scene.sha256, make)
        if text is None and prompt is None:
            raise UserError(
                "there is nothing to compare: name a text to score on, or run a prompt first"
            )
        work.begin("Ablating", 5, "models")

        return ablation.ablate(
            guest,
            text,
            prompt,
            scene.layer,
            scene.site,
            members,
            kind=kind,
            means=means,
            among=[j for j in range(scene.n_neurons) if j not in gone],
            advance=work.advance,
            progress=Within(work),
        )


def _show_outcomes(found: list[ablation.Outcome]) -> None:
    whole = found[0].perplexity

    def change(value: float | None) -> str:
        if value is None or whole is None:
            return "–"
        return number(value / whole - 1, "+.2%")

    columns: dict[str, list[str | float | None]] = {"model": [each.name for each in found]}
    if whole is not None:
        columns["perplexity"] = [each.perplexity for each in found]
        columns["change"] = [change(each.perplexity) for each in found]
    asked = any(each.continuation for each in found)
    if asked:
        columns["the prompt goes on with"] = [
            json.dumps(each.continuation or "", ensure_ascii=False) for each in found
        ]
    st.dataframe(
        columns,
        column_config={"perplexity": st.column_config.NumberColumn(format="%.4f")},
        hide_index=True,
    )
    st.caption(
        ("" if whole is None else f"Perplexity over {_N_WINDOWS} windows, the same for all. ")
        + "The random neurons are as many, of the same layer and site: what the pole does beyond "
        "them is what makes it one."
        + (
            ""
            if asked
            else " Run a prompt that adds tokens on the Prompt page, and the table tells how each "
            "model goes on with it."
        )
    )
