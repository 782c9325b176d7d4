"""Three panels over the depth of models: cosine of the sets' means, mean and maximum variance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from projector.figures.contrast.series import (
    Facts,
    Found,
    ModelRows,
    cosine_form,
    facts_of,
    known,
    read_models,
    set_names,
    shown,
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
    lay_out,
)
from projector.residual.flow.words import number

# Where no cosine is below it, the axis needs no 0.
_LARGE = 0.5
_NULLS = (
    ("cosine_across_halves", "a half of each set", SETS, "dot"),
    ("cosine_split_half", "random halves of one set", NULL, "dash"),
    ("cosine_permuted", "permuted labels", PERMUTED, "dot"),
)
_TITLES = ("cosine of means", "mean variance", "maximum variance")


def panels(found: Found | Facts, *, layer: int | None = None) -> go.Figure:
    """Three stacked panels for each model, side by side, over the depth of the stream.

    The panels show the cosine of the two sets' means with its interval, compared with random halves
    of each set and permuted labels; and the mean and maximum over features of each set's variance
    over samples, on logarithmic axes. The embedding is drawn separately; open circles are after
    attention.

    Args:
        layer: the layer to mark.

    Raises:
        UserError: if this is not a report of two sets.
    """
    facts = facts_of(found)
    models = read_models(facts)
    figure = make_subplots(
        rows=3,
        cols=len(models),
        shared_xaxes=True,
        vertical_spacing=0.04,
        horizontal_spacing=0.12 / len(models),
        column_titles=[shown(each.model) for each in models] if len(models) > 1 else None,
    )
    for column, model in enumerate(models, 1):
        _add_cosines(figure, model, column)
        for row, name in ((2, "variance_mean"), (3, "variance_max")):
            _add_variances(figure, model, name, set_names(facts), row, column)
        axis = depth_axis(model.places)
        figure.update_xaxes(**axis, col=column)
        figure.update_xaxes(
            title={"text": DEPTH_TITLE if len(models) < 3 else "layer"}, row=3, col=column
        )
        if layer is not None and layer < model.n_layers:
            figure.add_vrect(
                x0=layer,
                x1=layer + 1,
                row="all",
                col=column,
                fillcolor=clear(NULL, 0.18),
                line_width=0,
                layer="below",
            )
    figure.update_yaxes(range=_cosine_range(models), row=1, hoverformat=cosine_form(models))
    for row, title in enumerate(_TITLES, 1):
        figure.update_yaxes(title={"text": title}, row=row, col=1)
    for row in (2, 3):
        figure.update_yaxes(type="log", exponentformat="power", dtick=1, row=row)
    # Fewer than one power of ten would leave the axis without a number.
    for row, name in ((2, "variance_mean"), (3, "variance_max")):
        for column, model in enumerate(models, 1):
            if _spread(model, name) < 10:
                figure.update_yaxes(dtick="D1", row=row, col=column)
    return lay_out(figure, 760, top=64 if len(models) == 1 else 84)


def _add_cosines(figure: go.Figure, model: ModelRows, column: int) -> None:
    where: dict[str, Any] = {"row": 1, "col": column}
    form = cosine_form([model])
    for name, words, color, dash in _NULLS:
        low, high = (model.column(f"{name}_{end}") for end in ("low", "high"))
        add_places(
            figure,
            model.places,
            model.column(name),
            color,
            words,
            dash=dash,
            band=(low, high),
            customdata=_ranges(low, high, "90 % of draws", form),
            form=form,
            legend=column == 1,
            **where,
        )
    low, high = model.column("cosine_low"), model.column("cosine_high")
    name = "cosine of the two sets’ means"
    add_places(
        figure,
        model.places,
        model.column("cosine"),
        SETS,
        name,
        band=(low, high),
        customdata=_ranges(low, high, "bootstrap spread", form),
        form=form,
        legend=column == 1,
        **where,
    )


def _ranges(
    low: Sequence[float | None], high: Sequence[float | None], what: str, form: str
) -> list[str]:
    return [
        "" if a is None or b is None else f"<br>{what}: {number(a, form)} to {number(b, form)}"
        for a, b in zip(low, high, strict=True)
    ]


def _add_variances(
    figure: go.Figure,
    model: ModelRows,
    name: str,
    names: tuple[str, str],
    row: int,
    column: int,
) -> None:
    for side, words, color in (("positive", names[0], POSITIVE), ("negative", names[1], NEGATIVE)):
        # A logarithmic axis has no place for 0.
        values, low, high = (
            [value or None for value in model.column(f"{name}_{side}{end}")]
            for end in ("", "_low", "_high")
        )
        add_places(
            figure,
            model.places,
            values,
            color,
            words,
            form=".3g",
            band=(low, high),
            customdata=_ranges(low, high, "bootstrap spread", ".3g"),
            legend=row == 2 and column == 1,
            row=row,
            col=column,
        )


def _cosine_range(models: Sequence[ModelRows]) -> list[float]:
    """Of the axis of cosines: up to 1, and down to what there is; with 0, unless all are large."""
    lowest = min(
        (
            value
            for model in models
            for name in ("cosine", "cosine_low", *(f"{control}_low" for control, *_ in _NULLS))
            for value in known(model.column(name))
        ),
        default=0.0,
    )
    if lowest < _LARGE:
        return [min(0.0, lowest) - 0.05, 1.05]
    room = max(0.08 * (1 - lowest), 1e-5)
    return [lowest - room, 1 + room]


def _spread(model: ModelRows, name: str) -> float:
    """How many times the largest of its variances is the smallest."""
    sides = (f"{name}_positive", f"{name}_negative")
    values = [value for side in sides for value in known(model.column(side)) if value > 0]
    return max(values) / min(values) if values else 1.0
