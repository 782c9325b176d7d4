"""Why variance grows: the parts of the variance after each block, as stacked bars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from projector.figures.contrast.series import (
    Facts,
    Found,
    ModelRows,
    entries_of,
    facts_of,
    number_of,
    read_models,
    shown,
)
from projector.figures.contrast.style import (
    ATTENTION,
    MLP,
    NULL,
    STREAM,
    UPDATE,
    add_band,
    clear,
    layer_axis,
    name_panels,
)
from projector.residual.flow.words import number

_WHOLE_TITLE, _SPLIT_TITLE = "the whole update", "attention and MLP separately"
_CORRELATION_TITLE = "correlation of stream and update"
# Each: its name in the report, what it is called, colour and pattern. The sum of each is 1.
_Part = tuple[str, str, str, str]
_WHOLE: tuple[_Part, ...] = (
    ("growth_pre", "Var(pre): carried over", STREAM, ""),
    ("growth_update", "Var(update): added", UPDATE, ""),
    ("growth_covariance", "2 Cov(pre, update): shared", UPDATE, "/"),
)
_SPLIT: tuple[_Part, ...] = (
    ("pre", "Var(pre): carried over", STREAM, ""),
    ("attention_variance", "Var(attention)", ATTENTION, ""),
    ("mlp_variance", "Var(MLP)", MLP, ""),
    ("covariance_pre_attention", "2 Cov(pre, attention)", ATTENTION, "/"),
    ("covariance_pre_mlp", "2 Cov(pre, MLP)", MLP, "/"),
    ("covariance_attention_mlp", "2 Cov(attention, MLP)", UPDATE, "x"),
)


def growth_figure(found: Found | Facts, *, layer: int | None = None) -> go.Figure:
    """One row per model: the shares of Var(post) for each block; the same with attention and the
    MLP separated, if possible; and the correlation of the stream and the update, compared with
    random rotations. Bars reach below 0 if a covariance is negative; a block's sum to 1.

    Args:
        layer: the layer to mark.

    Raises:
        UserError: if this is not a report of two sets.
    """
    facts = facts_of(found)
    models = read_models(facts)
    steps = {model.model: block_entries(facts, model.model) for model in models}
    drawn = [_WHOLE_TITLE]
    everything = [each for rows in steps.values() for each in rows]
    if any(number_of(each, "attention_variance") is not None for each in everything):
        drawn.append(_SPLIT_TITLE)
    if any(number_of(each, "correlation") is not None for each in everything):
        drawn.append(_CORRELATION_TITLE)
    figure = make_subplots(
        rows=len(models),
        cols=len(drawn),
        subplot_titles=[
            f"{shown(model.model, 24)}<br>{title}" if len(models) > 1 else title
            for model in models
            for title in drawn
        ],
        horizontal_spacing=0.09,
        vertical_spacing=0.36 / len(models),
    )
    for row, model in enumerate(models, 1):
        for column, title in enumerate(drawn, 1):
            if title == _CORRELATION_TITLE:
                _add_correlation(figure, steps[model.model], row, column)
                continue
            is_whole = title == _WHOLE_TITLE
            rows = blocks_of(model) if is_whole else steps[model.model]
            _add_bars(figure, rows, _WHOLE if is_whole else _SPLIT, row, column)
            figure.update_yaxes(tickformat=".0%", row=row, col=column)
        figure.update_yaxes(title={"text": "share of Var(post)"}, row=row, col=1)
        figure.update_xaxes(**layer_axis(model.n_layers), row=row)
        if layer is not None and layer < model.n_layers:
            mark = {"fillcolor": clear(NULL, 0.18), "line_width": 0, "layer": "below"}
            figure.add_vrect(x0=layer - 0.5, x1=layer + 0.5, row=row, col="all", **mark)
    figure.update_yaxes(zeroline=True, zerolinecolor=NULL)
    figure.update_layout(barmode="relative", bargap=0.25)
    return name_panels(figure, n_rows=len(models), n_columns=len(drawn), height=230)


def _add_bars(
    figure: go.Figure, rows: Sequence[Facts], parts: Sequence[_Part], row: int, column: int
) -> None:
    for name, words, color, pattern in parts:
        values = [number_of(each, name) for each in rows]
        if all(value is None for value in values):
            continue
        marker: dict[str, Any] = {"color": color, "line": {"width": 0}}
        if pattern:
            marker["pattern"] = {"shape": pattern, "fgcolor": "#ffffff", "size": 6, "solidity": 0.3}
        figure.add_bar(
            x=[each.get("layer") for each in rows],
            y=values,
            name=words,
            legendgroup=f"{words}, {column}",
            showlegend=row == 1,
            marker=marker,
            hovertemplate=f"layer %{{x}}: %{{y:.1%}}<extra>{words}</extra>",
            row=row,
            col=column,
        )


def _add_correlation(figure: go.Figure, steps: Sequence[Facts], row: int, column: int) -> None:
    """The correlation of the stream and the update, and the band of random rotations."""
    at = [int(each.get("layer", 0)) for each in steps]
    rotated = [number_of(each, "correlation_rotated") for each in steps]
    where = {"row": row, "col": column}
    words = "randomly rotated updates"
    add_band(
        figure, at, [None if v is None else -v for v in rotated], rotated, NULL, words, **where
    )
    figure.add_scatter(
        x=at,
        y=[number_of(each, "correlation") for each in steps],
        customdata=[number(value, ".3f") for value in rotated],
        mode="lines+markers",
        line={"color": UPDATE, "width": 2},
        marker={"size": 7},
        name="correlation (band: random rotations)",
        showlegend=row == 1,
        hovertemplate="layer %{x}: %{y:.3f}<br>95 % of random rotations: ±%{customdata}"
        "<extra>correlation of stream and update</extra>",
        **where,
    )


def block_entries(facts: Facts, model: str) -> list[Facts]:
    """The growth entries of whole blocks, averaged over both sets, by layer."""
    return entries_of(facts, "growth", model)


def blocks_of(model: ModelRows) -> list[Facts]:
    """The rows after each block."""
    return [r for p, r in zip(model.places, model.rows, strict=True) if p.stream == "resid_post"]
