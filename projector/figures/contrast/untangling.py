"""How two sets are distributed at each point of the stream, and how well they are separated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from projector.figures.contrast.series import (
    Facts,
    Found,
    ModelRows,
    as_model,
    entries_of,
    facts_of,
    number_of,
    set_names,
)
from projector.figures.contrast.style import (
    DEPTH_TITLE,
    NEGATIVE,
    NULL,
    PERMUTED,
    POSITIVE,
    SETS,
    add_places,
    clear,
    depth_axis,
    name_panels,
)
from projector.residual.flow.words import number


@dataclass(frozen=True)
class _Curve:
    name: str
    words: str
    color: str
    dash: str = "solid"
    mark: str = "circle"


_TITLES = (
    "Cosine of two samples",
    "Linear probe, accuracy",
    "Effective dimension",
    "Shares of the difference and of variance",
)


def untangling_of(found: Found | Facts, model: str) -> ModelRows | None:
    """The report's entries for a model, point by point; None if there are none."""
    return as_model(model, entries_of(facts_of(found), "untangling", model))


def untangling_figure(
    found: Found | Facts, model: str, *, layer: int | None = None
) -> go.Figure | None:
    """Four panels over the depth of a model, each curve with its control as a dashed line; None if
    nothing was measured.

    Args:
        model: name of the model in the report.
        layer: the layer to mark.

    Raises:
        UserError: if this is not a report of two sets.
    """
    facts = facts_of(found)
    rows = untangling_of(facts, model)
    if rows is None:
        return None
    figure = make_subplots(
        rows=2, cols=2, subplot_titles=_TITLES, horizontal_spacing=0.1, vertical_spacing=0.17
    )
    for place, curves in _panels(set_names(facts)).items():
        _add_curves(figure, rows, curves, *place)
    baseline = number_of(rows.rows[0], "embedding_accuracy")
    if baseline is None and rows.places[0].is_embedding:
        baseline = number_of(rows.rows[0], "probe_accuracy")
    if baseline is not None:
        _add_baseline(figure, rows, baseline)
    figure.update_xaxes(**depth_axis(rows.places))
    figure.update_xaxes(title={"text": DEPTH_TITLE}, row=2)
    figure.update_yaxes(zeroline=True, zerolinecolor=clear(NULL, 0.5))
    figure.update_yaxes(range=[0.35, 1.03], tickformat=".0%", row=1, col=2)
    figure.update_yaxes(rangemode="tozero", row=2)
    if layer is not None and layer < rows.n_layers:
        mark = {"fillcolor": clear(NULL, 0.18), "line_width": 0, "layer": "below"}
        figure.add_vrect(x0=layer, x1=layer + 1, row="all", col="all", **mark)
    return name_panels(figure, n_rows=2, n_columns=2, height=230)


def _panels(names: tuple[str, str]) -> dict[tuple[int, int], tuple[_Curve, ...]]:
    """The curves of each panel by its row and column."""
    sets = (("positive", names[0], POSITIVE), ("negative", names[1], NEGATIVE))
    return {
        (1, 1): (
            *(_Curve(f"within_cosine_{side}", name, color) for side, name, color in sets),
            _Curve("between_cosine", "one of each set", SETS),
            _Curve("within_cosine_permuted", "permuted labels", PERMUTED, "dash"),
        ),
        (1, 2): (
            _Curve("probe_accuracy", "probe", SETS),
            _Curve("probe_permuted", "permuted labels", PERMUTED, "dash"),
        ),
        (2, 1): (
            *(_Curve(f"effective_dimension_{side}", name, color) for side, name, color in sets),
            *(
                _Curve(
                    f"effective_dimension_isotropic_{side}",
                    f"{name}: Gaussian, same number",
                    color,
                    "dash",
                )
                for side, name, color in sets
            ),
        ),
        (2, 2): (
            _Curve("one_direction", "sets’ difference on one direction", SETS),
            _Curve("pair_direction", "pairs’ difference on one direction", SETS, mark="square"),
            _Curve("between_share", "variance between the sets", SETS, mark="triangle-up"),
            _Curve("one_direction_permuted", "permuted labels", PERMUTED, "dash"),
        ),
    }


def _add_curves(
    figure: go.Figure, rows: ModelRows, curves: Sequence[_Curve], row: int, column: int
) -> None:
    where: dict[str, Any] = {"row": row, "col": column}
    for curve in curves:
        values = rows.column(curve.name)
        high = rows.column(f"{curve.name}_high") if curve.dash != "solid" else []
        add_places(
            figure,
            rows.places,
            values,
            curve.color,
            curve.words,
            dash=curve.dash,
            mark=curve.mark,
            band=(values, high) if high else None,
            customdata=[_above(v) for v in high] or None,
            **where,
        )


def _above(value: float | None) -> str:
    return "" if value is None else f"<br>5 % of draws are above {number(value, '.3f')}"


def _add_baseline(figure: go.Figure, rows: ModelRows, accuracy: float) -> None:
    """The probe on the embedding alone, as a line over all places."""
    figure.add_scatter(
        x=[rows.places[0].depth, rows.places[-1].depth],
        y=[accuracy, accuracy],
        mode="lines",
        line={"color": SETS, "dash": "dot", "width": 1.5},
        name="probe of the embedding alone",
        hovertemplate="%{y:.3f}<extra>probe of the embedding alone</extra>",
        row=1,
        col=2,
    )
