"""Figures of an experiment on reuse: perplexity against savings, and paired differences."""

from __future__ import annotations

import html

import plotly.graph_objects as go
from plotly.colors import qualitative

from projector.errors import UserError
from pruning.reuse.records import (
    CANDIDATES,
    DENSE,
    EARLY_WRITE,
    METHODS_HELP,
    MIXED,
    N_ERRORS,
    Comparison,
    ReuseReport,
)
from pruning.reuse.showing.summaries import (
    Summary,
    counts_of,
    dense_of,
    errors_apart,
    name_of,
    pair_name,
    summaries,
    verdict,
)
from pruning.reuse.showing.words import percent, signed

_GREY = "#888"


def perplexity_figure(report: ReuseReport) -> go.Figure:
    """Perplexity against the share of MLP operations saved, with a line for each method.

    Bars are one standard deviation over seeds. A grey line shows the dense model.

    Raises:
        UserError: if there are no rows.
    """
    found = summaries(report)
    dense = dense_of(found)
    colors = method_colors(report)
    if not found:
        raise UserError("the report has no rows: run `pruning reuse` to its end")
    figure = go.Figure()
    for name, color in colors.items():
        points = sorted(
            (s for s in found if s.name == name and s.perplexity is not None and s.share > 0),
            key=lambda s: s.share,
        )
        if points:
            figure.add_trace(_line(points, name, color, dense))
    if dense is not None and dense.perplexity is not None:
        figure.add_hline(y=dense.perplexity, line={"color": _GREY, "width": 1})
        figure.add_annotation(
            text=f"dense {dense.perplexity:,.3f}",
            x=1,
            xref="x domain",
            xanchor="right",
            y=dense.perplexity,
            # Below the line, where there are no models.
            yanchor="top",
            showarrow=False,
        )
    figure.update_layout(
        template="plotly_white",
        xaxis={
            "title": "share of the MLPs' operations saved",
            "tickformat": ".0%",
            "rangemode": "tozero",
        },
        yaxis={"title": "perplexity"},
        legend={"title": "method"},
        margin={"l": 60, "r": 20, "t": 30, "b": 60},
        height=460,
    )
    return figure


def differences_figure(report: ReuseReport) -> go.Figure:
    """The cost of a method minus the cost of another, in nats a token, at each share.

    Bars are as many standard errors of the paired difference as a win needs: the first method wins
    if a bar lies below zero, and loses if it lies above. The colour is the second method's, the
    symbol the first method's.
    """
    colors = method_colors(report)
    figure = go.Figure()
    kinds = dict.fromkeys(pair_name(each) for each in report.comparisons)
    shares = sorted({each.share for each in report.comparisons})
    for k, name in enumerate(kinds):
        own = [each for each in report.comparisons if pair_name(each) == name]
        # Next to each other, so that bars don't hide each other.
        shift = min(0.12, 0.9 / len(kinds)) * (k - (len(kinds) - 1) / 2)
        figure.add_trace(
            go.Scatter(
                x=[shares.index(each.share) + shift for each in own],
                y=[each.difference for each in own],
                error_y={
                    "type": "data",
                    "array": [N_ERRORS * (each.standard_error or 0.0) for each in own],
                    "thickness": 1.5,
                    "width": 5,
                },
                mode="markers",
                name=html.escape(name),
                marker={
                    "color": colors.get(name_of(own[0].against, 1), _GREY),
                    "size": 9,
                    "symbol": _symbol(own[0]),
                },
                customdata=[
                    f"{html.escape(name)}, {percent(each.share)}: {verdict(each)}, "
                    f"{signed(each.difference)} nats a token, {_apart(errors_apart(each))}"
                    for each in own
                ],
                hovertemplate="%{customdata}<extra></extra>",
            )
        )
    figure.add_hline(y=0, line={"color": _GREY, "width": 1})
    figure.update_layout(
        template="plotly_white",
        xaxis={
            "title": "share of the MLPs' operations to be saved",
            "tickvals": list(range(len(shares))),
            "ticktext": [percent(share) for share in shares],
            "range": [-0.6, len(shares) - 0.4],
        },
        yaxis={"title": "nats a token: the first − the second", "tickformat": "+.3~g"},
        showlegend=True,
        legend={"title": "methods"},
        margin={"l": 60, "r": 20, "t": 30, "b": 60},
        height=400,
    )
    return figure


def method_colors(report: ReuseReport) -> dict[str, str]:
    """Name → colour of every method except the dense model; the same in all figures of a report."""
    known = [method for method in METHODS_HELP if method != DENSE]
    names = dict.fromkeys(each.name for each in summaries(report) if each.method != DENSE)
    names = {**{name: None for name in known if name in names}, **names}
    return {name: qualitative.D3[i % len(qualitative.D3)] for i, name in enumerate(names)}


def _line(points: list[Summary], name: str, color: str, dense: Summary | None) -> go.Scatter:
    # Every line begins at the dense model.
    first = [] if dense is None or dense.perplexity is None else [dense]
    return go.Scatter(
        x=[0.0 for _ in first] + [each.saved for each in points],
        y=[each.perplexity for each in [*first, *points]],
        error_y={
            "type": "data",
            "array": [0.0 for _ in first] + [each.spread or 0.0 for each in points],
            "thickness": 1,
            "width": 3,
        },
        mode="lines+markers",
        # Plotly reads its texts as HTML.
        name=html.escape(name),
        line={"color": color, "width": 3 if points[0].method in CANDIDATES else 2},
        marker={"size": 6},
        customdata=[_told(each) for each in [*first, *points]],
        hovertemplate="%{customdata}<extra></extra>",
    )


def _told(point: Summary) -> str:
    """What a point shows under the pointer."""
    if point.method == DENSE:
        return f"<b>dense model</b><br>perplexity {point.text}"
    seeds = f"{point.n_seeds:,} seed" + ("" if point.n_seeds == 1 else "s")
    saved = 0.0 if point.saved is None else point.saved
    counts = counts_of(point) or f"{point.n_changed:,.0f} neurons changed"
    return (
        f"<b>{html.escape(point.name)}</b><br>{saved:.2%} of the MLPs' operations saved"
        f"<br>{counts}<br>perplexity {point.text} ({seeds})"
    )


def _symbol(comparison: Comparison) -> str:
    """Of the first method of a pair."""
    if comparison.n_partners > 1:
        return "diamond"
    return {MIXED: "star", EARLY_WRITE: "square"}.get(comparison.method, "circle")


def _apart(errors: float | None) -> str:
    return "no standard error" if errors is None else f"{errors:.1f} standard errors"
