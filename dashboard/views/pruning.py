"""Reports of sweeps, the neurons that a plan removes, and small sweeps."""

from __future__ import annotations

from collections.abc import Iterable

import streamlit as st

from dashboard import jobs, sweeping
from dashboard.components.neuron_map import Panel, View, neuron_map
from dashboard.drawing import coloring
from dashboard.drawing.legend import Legend
from dashboard.drawing.text import LABELS, neuron_name, page_text
from dashboard.orders import LEAST_SEQUENCES, MOST_SEEDS, MOST_SEQUENCES, Order
from dashboard.state import session
from dashboard.state.loading import (
    folders_with,
    forget_folders,
    plan_at,
    points_at,
)
from dashboard.state.scene import Scene
from dashboard.views.reports import show_reports
from projector.corpus.sources import sources_help
from projector.errors import UserError
from pruning.limits import DEFAULT_SEQUENCES
from pruning.methods.method import Method
from pruning.methods.plan import PLAN_FILE
from pruning.methods.registry import METHODS
from pruning.preparing import usual_texts
from pruning.refit.record import Refit
from pruning.refit.registry import REFITS

_TYPED, _PROBLEM = "sweep typed", "sweep problem"
_SHARES_HELP = (
    "Shares of each layer's MLP neurons to remove, separated by commas: 0.1, 0.3 or 10%, 30%."
)
_SEEDS_HELP = (
    "How many times the sweep is repeated, each time with different calibration sequences. With 2 "
    "or more, the report gives a standard deviation."
)
TITLE, ICON, PATH = "Pruning", ":material/content_cut:", "pruning"


def _help_of(question: str, records: Iterable[Method] | Iterable[Refit]) -> str:
    """A field's help: the question, and a line for each choice."""
    return question + "\n\n" + "".join(f"- `{each.name}`: {each.help}\n" for each in records)


def show(scene: Scene) -> None:
    """Draw the page."""
    st.title("What pruning costs")
    tab_report, tab_plan, tab_sweep = st.tabs(["Reports", "Removed neurons", "New sweep"])
    with tab_report, session.problems():
        show_reports(scene)
    with tab_plan, session.problems():
        _show_plan(scene)
    with tab_sweep, session.problems():
        _show_sweep(scene)


def _show_plan(scene: Scene) -> None:
    """Show the neurons of this layer that a pruned model lacks, on the map."""
    found = {
        name: path
        for name, path in folders_with(scene.settings.roots, PLAN_FILE).items()
        if sweeping.source_of(path) == scene.sha256
    }
    if scene.site != "mlp_post":
        st.info("Plans remove MLP neurons: choose the site mlp_post in the sidebar.")
        return
    if not found:
        st.info(
            "There is no pruned copy of this model here. `pruning prune` makes one; this page then "
            "shows which neurons it removed.",
            icon=":material/content_cut:",
        )
        st.code(
            f"pruning prune {scene.model_name} --projection {scene.path} --out runs/pruned",
            language=None,
        )
        return
    name = st.selectbox("Pruned model", list(found), key="choose plan")
    plan = plan_at(found[name])
    if scene.layer >= len(plan.layers) or plan.layers[scene.layer].n_neurons != scene.n_neurons:
        st.error("This plan belongs to a model with another shape.")
        return
    layer = plan.layers[scene.layer]
    points = points_at(scene.path, scene.layer, scene.site, scene.layout)
    values = coloring.group_values(scene.n_neurons, layer.removed)
    by = {each.by for each in layer.stand_ins}
    view = View(
        [
            Panel(
                title=f"Layer {scene.layer}: {len(layer.removed):,} of {scene.n_neurons:,} removed",
                name=neuron_name(scene.layer, scene.site),
                points=points,
                values=values,
                selected=session.current().neuron,
            )
        ],
        dim=scene.dim,
        legend=Legend(
            f"{plan.method}, {plan.sparsity:.0%}",
            (("kept", coloring.KEPT), ("removed", coloring.REMOVED)),
            size=f"{len(by):,} stand in for others" if by else "",
        ),
        label="Map of the neurons that a plan removes",
    )
    neuron_map(view, key="plan map", on_pick=lambda _, neuron: session.change(neuron=neuron))


def _show_sweep(scene: Scene) -> None:
    st.write(
        "A small comparison in the background: it runs while you look at other pages, and can be "
        "stopped and resumed."
    )
    for job in jobs.find(scene.settings.roots[0]):
        # Jobs that have ended aren't checked again.
        is_running = job.state().is_running
        st.fragment(_show_job, run_every=2.0 if is_running else None)(scene, job, is_running)
    _keep_fields(scene)
    with st.container(border=True):
        left, right = st.columns(2)
        left.multiselect(
            LABELS["methods"],
            list(METHODS),
            key="sweep methods",
            help=_help_of("Which neurons are removed, at equal size:", METHODS.values()),
        )
        right.multiselect(
            LABELS["refits"],
            list(REFITS),
            key="sweep refits",
            help=_help_of("How the kept neurons make up for it:", REFITS.values()),
        )
        left.text_input(LABELS["sparsities"], key="sweep sparsities", help=_SHARES_HELP)
        right.number_input(LABELS["n_seeds"], 1, MOST_SEEDS, key="sweep seeds", help=_SEEDS_HELP)
        example = "my-text.txt"
        left.text_input(
            LABELS["calibration"],
            key=_text_key("calibration", scene),
            placeholder=example,
            help="The text that methods choose neurons on and refits are fitted to. "
            + _text_help(),
        )
        right.text_input(
            LABELS["evaluation"],
            key=_text_key("evaluation", scene),
            placeholder=example,
            help="The text that perplexity is measured on. It must share nothing with the "
            "calibration text, and must not be the text that the projection was fitted on. "
            "Separate several with commas. " + _text_help(),
        )
        left.text_input(
            LABELS["out"],
            key="sweep name",
            help="The report's folder, which must not exist yet. The report appears under Reports.",
        )
        right.number_input(
            LABELS["n_sequences"],
            LEAST_SEQUENCES,
            MOST_SEQUENCES,
            key="sweep sequences",
            help="How many sequences to draw from the calibration text for each seed. More "
            "sequences make methods and refits more reliable, and take longer.",
        )
        with st.container(horizontal=True, vertical_alignment="center"):
            st.button(
                "Start",
                key="sweep start",
                type="primary",
                icon=":material/play_arrow:",
                on_click=_start,
                args=(scene,),
            )
            st.caption(_size(scene))
    problem: UserError | None = st.session_state.pop(_PROBLEM, None)
    if problem is not None:
        raise problem


def _text_key(kind: str, scene: Scene) -> str:
    """The key of a text's field; each model has its own."""
    return f"sweep {kind} {scene.model_name}"


def _text_help() -> str:
    # In backticks, because Markdown would interpret brackets and colons.
    return f"Write `{sources_help()}`. Files lie below the folders that the app was started with."


def _keep_fields(scene: Scene) -> None:
    """Fill the fields with the typed values, which Streamlit forgets on another page."""
    texts = usual_texts(scene.model_name)
    usual = {
        "sweep methods": ["random", "flap", "poles", "obs"],
        "sweep refits": ["none", "least-squares"],
        "sweep sparsities": "0.1, 0.3",
        "sweep seeds": 1,
        _text_key("calibration", scene): "" if texts is None else texts.calibration,
        _text_key("evaluation", scene): "" if texts is None else texts.evaluation,
        "sweep sequences": DEFAULT_SEQUENCES,
        "sweep name": "",
    }
    state = st.session_state
    kept = state.setdefault(_TYPED, {})
    for key, value in usual.items():
        if key not in state:
            state[key] = kept.get(key, value)
    if not state["sweep name"]:
        state["sweep name"] = sweeping.next_name(scene.settings.roots[0])
    kept.update({key: state[key] for key in usual})


def _order(scene: Scene) -> Order:
    """The order in the fields."""
    state = st.session_state
    return Order(
        name=str(state["sweep name"]).strip(),
        projection=scene.name,
        model=scene.model_name,
        methods=tuple(state["sweep methods"]),
        refits=tuple(state["sweep refits"]),
        sparsities=str(state["sweep sparsities"]),
        n_seeds=int(state["sweep seeds"]),
        n_sequences=int(state["sweep sequences"]),
        calibration=str(state[_text_key("calibration", scene)]),
        evaluation=str(state[_text_key("evaluation", scene)]),
    )


def _size(scene: Scene) -> str:
    """The number of models for the fields; a dash if they can't be read."""
    try:
        return f"{_order(scene).n_models:,} models to score"
    except UserError:
        return "– models to score"


def _start(scene: Scene) -> None:
    """Start the sweep before the page runs; the page then shows the job, and keeps the fields."""
    order = _order(scene)
    try:
        sweeping.start(scene.settings, order)
    except UserError as error:
        st.session_state[_PROBLEM] = error
        return
    st.session_state["sweep name"] = sweeping.next_name(scene.settings.roots[0], order.name)


def _show_job(scene: Scene, job: jobs.Job, was_running: bool) -> None:
    state = job.state()
    if was_running and not state.is_running:
        # The report is complete, or another name is free: draw the whole page.
        forget_folders()
        st.rerun(scope="app")
    left, right = st.columns([4, 1.4], vertical_alignment="center")
    said = state.text
    if state.error is not None:
        # The page shows names, not the paths of the server's folders.
        said += f"; {page_text(state.error).replace(str(job.folder), job.name)}"
    text = f"{session.plain(job.name)}: {session.plain(said)}"
    if state.phase == "running":
        left.progress(state.share, text)
    elif state.phase == "done":
        left.success(text, icon=":material/check_circle:")
    elif state.phase == "stopped":
        left.info(text, icon=":material/pause_circle:")
    else:
        left.error(text, icon=":material/error:")
    buttons = right.container(horizontal=True, horizontal_alignment="right")
    if state.is_running:
        if buttons.button(
            "End now" if job.is_stopping else "Stop",
            key=f"stop {job.name}",
            icon=":material/stop_circle:",
            help="Ends the sweep without waiting for its current step."
            if job.is_stopping
            else None,
        ):
            job.stop()
            st.rerun(scope="app")
        return
    if (
        state.phase != "done"
        and job.order is not None
        and buttons.button(
            "Resume",
            key=f"resume {job.name}",
            icon=":material/play_arrow:",
            help="Continues with the models that aren't scored yet.",
        )
    ):
        try:
            sweeping.resume(scene.settings, job)
        except UserError as error:
            st.session_state[_PROBLEM] = error
        # Draw the whole page, because the job has changed.
        st.rerun(scope="app")
    if buttons.button(
        "Remove",
        key=f"remove {job.name}",
        icon=":material/close:",
        help="Removes it from this list; its report stays.",
    ):
        job.forget()
        st.rerun(scope="app")
