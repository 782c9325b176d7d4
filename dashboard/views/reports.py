"""The reports of the Pruning page: of the current model, the included report, and others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import streamlit as st

import dashboard
from dashboard.frame.exports import offer_figure
from dashboard.state import session
from dashboard.state.loading import (
    folders_with,
    is_foreign_report,
    report_at,
    reuse_report_at,
)
from dashboard.state.scene import Scene
from dashboard.views.reuse_reports import show_reuse
from projector.errors import UserError
from pruning.reporting.files import JSON_FILE
from pruning.sweep.figure import report_figure, seeds_text
from pruning.sweep.report import DENSE, PruningReport

# With more lines, the legend takes all of a figure's height.
_FEW_LINES = 20
SHIPPED = "bundled model, all methods (included)"


def show_reports(scene: Scene) -> None:
    """Choose and show a report of the current model."""
    found, others = _reports(scene)
    chosen = session.current().report
    if chosen is not None and chosen not in {**found, **others}:
        session.note(f"There is no report '{chosen[:80]}' here: another report is shown.")
        session.change(report=None)
    if not found:
        st.info(
            "This model has no report yet: make one under New sweep, or with `pruning "
            "sweep`. The report below is of another model.",
            icon=":material/content_cut:",
        )
    elif others:
        if chosen in others:
            session.fill("other reports", True)
        st.toggle(
            f"Show reports of other models too ({len(others)})",
            key="other reports",
            on_change=session.keep("other reports", False),
        )
    if not found or st.session_state.get("other reports"):
        found = {**found, **others}
    name = chosen if chosen in found else next(iter(found))
    session.bind("choose report", name)
    st.selectbox(
        "Report",
        list(found),
        key="choose report",
        on_change=lambda: session.change(report=st.session_state["choose report"]),
    )
    of_reuse = reuse_report_at(found[name])
    if of_reuse is not None:
        show_reuse(of_reuse, name)
        return
    report = report_at(found[name])
    if name == SHIPPED:
        st.caption(
            "This report comes with the program. `pruning sweep` made it with the bundled model; "
            "docs/pruning.md describes how."
        )
    if not report.rows:
        st.info("This sweep has no rows yet.")
        return
    texts = list(dict.fromkeys(row.evaluation for row in report.rows))
    text = st.selectbox("Text", texts, key="report text") if len(texts) > 1 else texts[0]
    _show_figure(report, name, text)
    _show_table(report, text)


def _reports(scene: Scene) -> tuple[dict[str, Path], dict[str, Path]]:
    """Folders of reports by name: of the current model, and of other models or damaged.

    Reports of other commands, such as ``projector layer-time``, aren't among them.
    """
    everywhere = folders_with(scene.settings.roots, JSON_FILE)
    everywhere = {**everywhere, SHIPPED: Path(dashboard.__file__).parent / "shipped"}
    own: dict[str, Path] = {}
    others: dict[str, Path] = {}
    for name, path in everywhere.items():
        try:
            if is_foreign_report(path):
                continue
            report = reuse_report_at(path) or report_at(path)
            is_own = report.model.get("sha256") == scene.sha256
        except UserError:
            # Choosing it shows why it is damaged.
            is_own = False
        (own if is_own else others)[name] = path
    return own, others


def _show_figure(report: PruningReport, name: str, text: str) -> None:
    facts = report.settings
    st.caption(
        session.plain(
            f"{report.model['id']}, {report.model['parameters']:,} parameters; calibrated on "
            f"{facts['n_sequences']:,} sequences of {facts['calibration']['source']}; "
            f"{seeds_text(facts['n_seeds'])}"
        )
    )
    figure = report_figure(report, text)
    # The page shows its title above it.
    shown = go.Figure(figure).update_layout(title={"text": ""}, margin={"t": 50})
    if len(figure.data) <= _FEW_LINES:
        # The table below should be visible too.
        shown.update_layout(height=480)
    st.plotly_chart(shown, key=f"report figure {name} {text}")
    stem = "shipped" if name == SHIPPED else name.replace("/", "-")
    offer_figure(figure, f"{stem}-perplexity")


def _show_table(report: PruningReport, text: str) -> None:
    summaries = [s for s in report.summaries() if s.evaluation == text]
    pruned = [s for s in summaries if s.method != DENSE]
    if not pruned:
        st.caption("No pruned model is scored yet.")
        return
    dense = next((s for s in summaries if s.method == DENSE), None)
    # Share of all parameters, at each share of the neurons.
    removed = {s.sparsity: s.removed_share for s in sorted(pruned, key=lambda s: s.sparsity)}
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for each in pruned:
        row = rows.setdefault(
            (each.method, each.refit), {"method": each.method, "refit": each.refit}
        )
        row[_percent(each.sparsity)] = each.text
    columns: dict[str, Any] = {
        _percent(sparsity): st.column_config.TextColumn(
            f"{_percent(sparsity)} removed",
            help=f"Perplexity without {_percent(sparsity)} of the MLP neurons, which is "
            f"{share:.1%} of all parameters.",
        )
        for sparsity, share in removed.items()
    }
    st.dataframe(
        list(rows.values()),
        hide_index=True,
        column_order=["method", "refit", *columns],
        column_config=columns | {"method": "Method", "refit": "Refit"},
        key=f"report table {text}",
    )
    has_spread = any(s.spread is not None for s in pruned)
    shares = " and ".join(", ".join(f"{each:.1%}" for each in removed.values()).rsplit(", ", 1))
    st.caption(
        "Perplexity at each share of MLP neurons removed"
        + (", mean ± standard deviation over seeds" if has_spread else "")
        + ("" if dense is None else f"; the dense model has {dense.text}")
        + f". The {'share is' if len(removed) == 1 else 'shares are'} {shares} of all parameters."
    )


def _percent(share: float) -> str:
    return f"{100 * share:.4g}%"
