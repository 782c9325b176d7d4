"""Reports of sweeps: what pruning costs; whom a plan removes; and small sweeps from here."""

from __future__ import annotations

import plotly.graph_objects as go
import streamlit as st

from dashboard import coloring, palette, session, sweeping
from dashboard.components.neuron_map import Legend, Panel, View, neuron_map
from dashboard.exports import offer_figure
from dashboard.frame import Scene, neuron_name
from dashboard.loading import extent_at, plan_at, points_at, report_at
from dashboard.settings import find_folders
from pruning.figures import report_figure
from pruning.planning import METHODS
from pruning.refit import REFITS
from pruning.report import DENSE, JSON_FILE, PruningReport
from pruning.saving import PLAN_FILE

TITLE, ICON, PATH = "Pruning", ":material/content_cut:", "pruning"


def show(scene: Scene) -> None:
    """Draw the page."""
    st.title("What pruning costs")
    tab_report, tab_plan, tab_sweep = st.tabs(["Reports", "Who goes", "New sweep"])
    with tab_report, session.problems():
        _show_reports(scene)
    with tab_plan, session.problems():
        _show_plan(scene)
    with tab_sweep, session.problems():
        _show_sweep(scene)


def _show_reports(scene: Scene) -> None:
    found = find_folders(scene.settings.roots, JSON_FILE)
    if not found:
        st.info(
            "No report yet: make one under New sweep, or with `pruning sweep`.",
            icon=":material/content_cut:",
        )
        return
    chosen = session.current().report
    name = chosen if chosen in found else next(iter(found))
    session.bind("choose report", name)
    st.selectbox(
        "Report",
        list(found),
        key="choose report",
        on_change=lambda: session.change(report=st.session_state["choose report"]),
    )
    report = report_at(found[name])
    if not report.rows:
        st.info("This sweep has no rows yet.")
        return
    texts = list(dict.fromkeys(row.evaluation for row in report.rows))
    text = st.selectbox("Text", texts, key="report text") if len(texts) > 1 else texts[0]
    facts = report.settings
    st.caption(
        session.plain(
            f"{report.model['id']}, {report.model['parameters']:,} parameters; calibrated on "
            f"{facts['n_sequences']:,} sequences of {facts['calibration']['source']}; "
            f"{facts['n_seeds']} seeds"
        )
    )
    figure = report_figure(report, text)
    # What its title says stands above it on the page.
    shown = go.Figure(figure).update_layout(title={"text": ""}, margin={"t": 50})
    st.plotly_chart(shown, key=f"report figure {name} {text}")
    offer_figure(figure, f"{name.replace('/', '-')}-perplexity")
    _show_table(report, text)


def _show_table(report: PruningReport, text: str) -> None:
    summaries = [s for s in report.summaries() if s.evaluation == text]
    sparsities = sorted({s.sparsity for s in summaries if s.method != DENSE})
    dense = next((s.perplexity for s in summaries if s.method == DENSE), None)
    rows: dict[tuple[str, str], dict[str, object]] = {}
    for each in summaries:
        if each.method != DENSE:
            row = rows.setdefault(
                (each.method, each.refit), {"method": each.method, "refit": each.refit}
            )
            row[f"{each.sparsity:.0%}"] = each.text
    if not sparsities:
        st.caption("No pruned model is scored yet.")
        return
    st.dataframe(list(rows.values()), hide_index=True, key=f"report table {text}")
    st.caption(
        "Perplexity at each share of MLP neurons removed, mean ± standard deviation over seeds"
        + ("" if dense is None else f"; the dense model has {dense:.3f}")
        + f". Removed at {sparsities[-1]:.0%}: "
        + f"{max(s.removed_share for s in summaries):.0%} of all parameters."
    )


def _show_plan(scene: Scene) -> None:
    """Which neurons of this layer a pruned model lacks, on the map."""
    found = {
        name: path
        for name, path in find_folders(scene.settings.roots, PLAN_FILE).items()
        if sweeping.source_of(path) == scene.sha256
    }
    if scene.site != "mlp_post":
        st.info("Plans remove MLP neurons: choose the site mlp_post at the side.")
        return
    if not found:
        st.info(
            "No pruned model of this one is here. `pruning prune` makes one; this page shows whom "
            "it left out.",
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
        st.error("This plan is of a model of another shape.")
        return
    layer = plan.layers[scene.layer]
    points = points_at(scene.path, scene.layer, scene.site)
    values = coloring.group_values(scene.n_neurons, layer.removed)
    by = {each.by for each in layer.stand_ins}
    view = View(
        [
            Panel(
                title=f"Layer {scene.layer}: {len(layer.removed):,} of {scene.n_neurons:,} go",
                name=neuron_name(scene.layer, scene.site),
                points=points,
                values=values,
                selected=session.current().neuron,
            )
        ],
        dim=scene.projection.dim,
        extent=extent_at(scene.path),
        colors=palette.groups(),
        legend=Legend(
            f"{plan.method}, {plan.sparsity:.0%}",
            (("stays", coloring.STAYS), ("goes", coloring.GOES)),
            size=f"{len(by):,} stand in for others" if by else "",
        ),
        label="Map of the neurons that a plan removes",
    )
    neuron_map(view, key="plan map", on_pick=lambda _, neuron: session.change(neuron=neuron))


def _show_sweep(scene: Scene) -> None:
    st.write(
        "A small comparison in the background: it goes on while you look at other pages, and can "
        "be stopped without loss."
    )
    running = sweeping.find(scene.settings.roots[0])
    for job in running:
        # What has ended is looked at no more.
        every = 2.0 if job.state().is_running else None
        st.fragment(_show_job, run_every=every)(job)
    with st.form("sweep form"):
        left, right = st.columns(2)
        methods = left.multiselect("Methods", list(METHODS), ["random", "flap", "poles", "obs"])
        refits = right.multiselect("Refits", list(REFITS), ["none", "least-squares"])
        sparsities = left.text_input("Shares to remove", "0.1, 0.3")
        seeds = right.number_input("Seeds", 1, 10, 1)
        bundled = scene.model_name == "bundled"
        calibration = left.text_input("Calibration text", "stdlib:train" if bundled else "")
        evaluation = right.text_input("Evaluation text", "stdlib:heldout" if bundled else "")
        name = left.text_input("Name of the report", "sweep-1")
        sent = right.form_submit_button("Start", type="primary")
    if sent:
        sweeping.start(
            scene,
            name=name,
            methods=methods,
            refits=refits,
            sparsities=sparsities,
            n_seeds=int(seeds),
            calibration=calibration,
            evaluation=evaluation,
        )
        st.rerun()


def _show_job(job: sweeping.Job) -> None:
    state = job.state()
    left, right = st.columns([6, 1], vertical_alignment="center")
    if state.is_running:
        left.progress(state.share, f"{session.plain(job.name)}: {session.plain(state.text)}")
        if right.button("Stop", key=f"stop {job.name}", icon=":material/stop_circle:"):
            job.stop()
            st.rerun(scope="app")
    elif state.failed:
        left.error(f"{session.plain(job.name)}: {session.plain(state.text)}")
    else:
        left.success(f"{session.plain(job.name)}: {session.plain(state.text)}")
