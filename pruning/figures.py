"""A pruning report becomes a Plotly figure."""

from __future__ import annotations

import html
import math
from typing import Any

import plotly.graph_objects as go
from plotly.colors import qualitative

from projector.errors import UserError
from pruning.report import DENSE, PruningReport, Summary

_DASHES = {"none": "dot", "bias": "dashdot", "least-squares": "dash", "reconstruct": "solid"}
# Above this multiple of the dense perplexity a curve tells little, and flattens the others: one
# has to zoom out to see it.
_MOST_RATIO = 4.0


def report_figure(report: PruningReport, evaluation: str | None = None) -> go.Figure:
    """Perplexity against the share of parameters removed, a line for each method and refit.

    Bars are one standard deviation over seeds. A menu chooses the refit; the perplexity axis is
    logarithmic, and begins a little below the dense model's line.

    Args:
        evaluation: the text; None for the report's first.
    """
    evaluations = list(dict.fromkeys(row.evaluation for row in report.rows))
    if not evaluations:
        raise UserError("the report has no rows: run `pruning sweep` to its end")
    chosen = evaluation or evaluations[0]
    if chosen not in evaluations:
        raise UserError(f"the report has no evaluation '{chosen}', but {', '.join(evaluations)}")
    found = [s for s in report.summaries() if s.evaluation == chosen and s.perplexity is not None]
    dense = next((s.perplexity for s in found if s.method == DENSE), None)
    methods = list(dict.fromkeys(s.method for s in found if s.method != DENSE))
    refits = [r for r in _DASHES if any(s.refit == r and s.method != DENSE for s in found)]
    figure = go.Figure()
    for i, method in enumerate(methods):
        color = qualitative.D3[i % len(qualitative.D3)]
        for refit in refits:
            points = sorted(
                (s for s in found if s.method == method and s.refit == refit),
                key=lambda s: s.removed_share,
            )
            if points:
                figure.add_trace(_line(points, method, refit, color, dense))
    if dense is not None:
        figure.add_hline(
            y=dense, line={"color": "#888", "width": 1}, annotation_text=f"dense {dense:.2f}"
        )
    figure.update_layout(
        template="plotly_white",
        title={"text": _title(report, chosen, found), "x": 0.01, "font": {"size": 15}},
        xaxis={
            "title": "share of all parameters removed",
            "tickformat": ".0%",
            "rangemode": "tozero",
        },
        yaxis={
            "title": "perplexity",
            "type": "log",
            "range": _range(found, dense),
            "tickvals": _ticks(found, dense),
        },
        # All of eight methods and four refits, without scrolling.
        legend={"title": "method, refit", "tracegroupgap": 0, "font": {"size": 11}},
        margin={"l": 60, "r": 20, "t": 110, "b": 60},
        height=720,
        updatemenus=[_menu(figure, refits)],
    )
    return figure


def _range(found: list[Summary], dense: float | None) -> list[float] | None:
    """Of the logarithmic perplexity axis."""
    if dense is None:
        return None
    most = max((s.perplexity for s in found if s.perplexity is not None), default=dense)
    return [math.log10(dense * 0.97), math.log10(min(most * 1.05, dense * _MOST_RATIO))]


def _ticks(found: list[Summary], dense: float | None) -> list[float] | None:
    """Round numbers over the range, closer below: Plotly names but the last digit of its own."""
    if dense is None:
        return None
    most = max((s.perplexity for s in found if s.perplexity is not None), default=dense)
    power = 10 ** math.floor(math.log10(dense))
    steps = (1, 1.1, 1.2, 1.3, 1.5, 1.75, 2, 2.5, 3, 4, 5, 6, 7, 7.5, 8, 8.5, 9, 9.5)
    ticks = [power * scale * step for scale in (1, 10, 100, 1000) for step in steps]
    return [float(f"{t:.6g}") for t in ticks if dense * 0.97 <= t <= most * 1.1]


def _line(
    points: list[Summary], method: str, refit: str, color: str, dense: float | None
) -> go.Scatter:
    first_x, first_y = ([0.0], [dense]) if dense is not None else ([], [])
    return go.Scatter(
        x=first_x + [s.removed_share for s in points],
        y=first_y + [s.perplexity for s in points],
        error_y={
            "type": "data",
            "array": [0.0] * len(first_x) + [s.spread or 0.0 for s in points],
            "thickness": 1,
            "width": 3,
        },
        mode="lines+markers",
        name=f"{method}, {refit}",
        legendgroup=method,
        meta=refit,
        line={"color": color, "dash": _DASHES[refit], "width": 2},
        marker={"size": 6},
        customdata=[[0.0, 0, 0.0]] * len(first_x)
        + [[s.sparsity, s.n_seeds, s.spread or 0.0] for s in points],
        hovertemplate=(
            f"<b>{method}</b>, {refit}<br>sparsity %{{customdata[0]:.0%}}"
            "<br>perplexity %{y:.3f} ± %{customdata[2]:.3f}"
            "<br>%{customdata[1]} seeds<extra></extra>"
        ),
    )


def _menu(figure: go.Figure, refits: list[str]) -> dict[str, Any]:
    def shown(refit: str | None) -> list[bool]:
        return [refit is None or trace.meta == refit for trace in figure.data]

    buttons = [{"label": "all refits", "method": "restyle", "args": [{"visible": shown(None)}]}]
    buttons += [
        {"label": refit, "method": "restyle", "args": [{"visible": shown(refit)}]}
        for refit in refits
    ]
    return {"buttons": buttons, "x": 1.0, "xanchor": "right", "y": 1.12, "yanchor": "bottom"}


def _title(report: PruningReport, evaluation: str, found: list[Summary]) -> str:
    model = report.model
    # Plotly reads its texts as HTML.
    name, text = html.escape(str(model["id"])), html.escape(evaluation)
    n_seeds = max((s.n_seeds for s in found if s.method != DENSE), default=0)
    calibration = html.escape(str(report.settings["calibration"]["source"]))
    return (
        f"{name}: what pruning its MLPs costs on {text}"
        f"<br><sup>{model['parameters']:,} parameters; calibrated on {calibration}; bars are one "
        f"standard deviation over {n_seeds} seeds</sup>"
    )
