"""Draw a pruning report as a Plotly figure."""

from __future__ import annotations

import html
import math
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from plotly.colors import qualitative

from projector.errors import UserError
from projector.figures.html import write_figure
from pruning.refit.registry import REFITS
from pruning.sweep.report import DENSE, PruningReport, Summary

# Above this multiple of the dense perplexity, a curve shows little and flattens the others: readers
# can zoom out to see it.
_MOST_RATIO = 4.0


def report_figure(report: PruningReport, evaluation: str | None = None) -> go.Figure:
    """Perplexity against the share of parameters removed, with a line for each method and refit.

    Bars are one standard deviation over seeds; a point shows its method, refit, mean, deviation and
    number of seeds under the pointer. A menu chooses the refit; the perplexity axis is logarithmic,
    and begins a little below the dense model's line.

    Args:
        evaluation: the evaluation text; None for the report's first text.
    """
    evaluations = list(dict.fromkeys(row.evaluation for row in report.rows))
    if not evaluations:
        raise UserError("the report has no rows: run `pruning sweep` until it ends")
    chosen = evaluation or evaluations[0]
    if chosen not in evaluations:
        raise UserError(f"the report has no evaluation '{chosen}', but {', '.join(evaluations)}")
    found = [s for s in report.summaries() if s.evaluation == chosen and s.perplexity is not None]
    dense = next((s.perplexity for s in found if s.method == DENSE), None)
    methods = list(dict.fromkeys(s.method for s in found if s.method != DENSE))
    swept = dict.fromkeys(s.refit for s in found if s.method != DENSE)
    # In the order of the registry; refits that no longer exist keep their lines.
    refits = [*(r for r in REFITS if r in swept), *(r for r in swept if r not in REFITS)]
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
        figure.add_hline(y=dense, line={"color": "#888", "width": 1})
        figure.add_annotation(
            text=f"dense {dense:.2f}",
            x=1,
            xref="x domain",
            xanchor="right",
            # On a logarithmic axis, annotations take the logarithm as their position, unlike lines.
            y=math.log10(dense),
            yanchor="bottom",
            showarrow=False,
        )
    shown = _shown(found, dense)
    ticks = [] if shown is None else _ticks(*shown)
    figure.update_layout(
        template="plotly_white",
        title={"text": _title(report, chosen, found), "x": 0.01, "font": {"size": 15}},
        xaxis={
            "title": "share of all parameters removed",
            "tickformat": ".0%",
            "rangemode": "tozero",
        },
        yaxis={
            "title": "perplexity (logarithmic axis)",
            "type": "log",
            "range": None if shown is None else [math.log10(shown[0]), math.log10(shown[1])],
            "tickvals": ticks,
            "ticktext": [f"{tick:,.6g}" for tick in ticks],
        },
        # High enough for the lines of all methods and refits without scrolling.
        legend={"title": "method, refit", "tracegroupgap": 0, "font": {"size": 11}},
        margin={"l": 60, "r": 20, "t": 110, "b": 60},
        height=720,
        # One refit needs no menu.
        updatemenus=[_menu(figure, refits)] if len(refits) > 1 else [],
    )
    return figure


def write_figures(report: PruningReport, folder: Path, *, only_missing: bool = False) -> list[Path]:
    """Write the figure of each text into the report's folder, and return the paths.

    Args:
        only_missing: don't write figures again that exist.
    """
    paths = [folder / name for name in report.figure_names]
    for path, evaluation in zip(paths, report.evaluations, strict=True):
        if not (only_missing and path.exists()):
            write_figure(report_figure(report, evaluation), path)
    return paths


def _shown(found: list[Summary], dense: float | None) -> tuple[float, float, float] | None:
    """The start and end of the perplexity axis, and the highest value."""
    values = [s.perplexity for s in found if s.perplexity is not None]
    if dense is not None:
        values.append(dense)
    if not values:
        return None
    least, most = min(values), max(values)
    first = least if dense is None else dense
    return least * 0.97, min(most * 1.05, first * _MOST_RATIO), most


def _ticks(low: float, high: float, most: float) -> list[float]:
    """About a dozen round numbers over the shown range, and few above it.

    Plotly labels its own ticks of a logarithmic axis with the last digit only.
    """
    if high / low > 2:
        digits = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9)
        ticks = [d * 10.0**k for k in _powers(low, high) for d in digits]
    else:
        rough = (high - low) / 6
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough)
        ticks = [n * step for n in range(math.ceil(low / step), math.floor(high / step) + 1)]
    above = [d * 10.0**k for k in _powers(high, most * 1.1) for d in (1, 2, 5)]
    found = [t for t in ticks if low <= t <= high] + [t for t in above if high < t <= most * 1.1]
    return [float(f"{t:.6g}") for t in found]


def _powers(low: float, high: float) -> range:
    return range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 1)


def _line(
    points: list[Summary], method: str, refit: str, color: str, dense: float | None
) -> go.Scatter:
    # Every line begins at the dense model.
    first_x, first_y, first_told = [], [], []
    if dense is not None:
        first_x, first_y = [0.0], [dense]
        first_told = [[0.0, f"<b>dense model</b><br>perplexity {dense:,.3f}"]]
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
        # Plotly reads its texts as HTML.
        name=html.escape(f"{method}, {refit}"),
        legendgroup=method,
        meta=refit,
        line={
            "color": color,
            "dash": REFITS[refit].dash if refit in REFITS else "longdash",
            "width": 2,
        },
        marker={"size": 6},
        customdata=first_told + [[s.sparsity, _told(s)] for s in points],
        hovertemplate="%{customdata[1]}<extra></extra>",
    )


def _told(point: Summary) -> str:
    """The text of a point under the pointer."""
    return (
        f"<b>{html.escape(point.method)}</b>, refit {html.escape(point.refit)}"
        f"<br>{100 * point.sparsity:.3g}% of the MLP neurons removed"
        f"<br>{point.removed_share:.1%} of all parameters"
        f"<br>perplexity {point.text} ({seeds_text(point.n_seeds)})"
    )


def seeds_text(n_seeds: int) -> str:
    """The number of seeds in words: ``1 seed``, ``3 seeds``."""
    return f"{n_seeds:,} seed" + ("" if n_seeds == 1 else "s")


def _menu(figure: go.Figure, refits: list[str]) -> dict[str, Any]:
    def shown(refit: str | None) -> list[bool]:
        return [refit is None or trace.meta == refit for trace in figure.data]

    buttons = [{"label": "all refits", "method": "restyle", "args": [{"visible": shown(None)}]}]
    buttons += [
        {"label": html.escape(refit), "method": "restyle", "args": [{"visible": shown(refit)}]}
        for refit in refits
    ]
    # Below the title, because pages have their buttons for figures elsewhere.
    return {"buttons": buttons, "x": 0, "xanchor": "left", "y": 1.01, "yanchor": "bottom"}


def _title(report: PruningReport, evaluation: str, found: list[Summary]) -> str:
    model = report.model
    name, text = html.escape(str(model["id"])), html.escape(evaluation)
    n_seeds = max((s.n_seeds for s in found if s.method != DENSE), default=0)
    bars = f"bars are one standard deviation over {seeds_text(n_seeds)}"
    if n_seeds < 2:
        bars = seeds_text(n_seeds)
    calibration = html.escape(str(report.settings["calibration"]["source"]))
    return (
        f"{name}: what pruning its MLPs costs on {text}"
        f"<br><sup>{model['parameters']:,} parameters; calibrated on {calibration}; {bars}</sup>"
    )
