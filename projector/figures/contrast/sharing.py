"""Whether successive layers write in the same directions, compared with random rotations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from projector.figures.contrast.series import (
    Facts,
    Found,
    entries_of,
    facts_of,
    number_of,
)
from projector.figures.contrast.style import (
    ATTENTION,
    MLP,
    NULL,
    UPDATE,
    add_band,
    clear,
    layer_axis,
    name_panels,
)
from projector.residual.flow.words import number

# Panels, each with its curves: name in the report, what it is called, colour.
_PANELS: tuple[tuple[str, tuple[tuple[str, str, str], ...]], ...] = (
    ("Cosine of successive updates", (("cosine", "updates", UPDATE),)),
    (
        "Directions of the updates",
        (("captured", "variance captured", UPDATE), ("overlap", "overlap of spans", UPDATE)),
    ),
    (
        "Directions of the output weights",
        (
            ("attention_weights", "attention’s weights", ATTENTION),
            ("mlp_weights", "MLP’s weights", MLP),
        ),
    ),
)
# Of the first and the second curve of a panel, and of their controls.
_MARKS, _DASHES = ("circle", "square-open"), ("dash", "dot")
_ANGLES = "Principal angles of the updates"


def sharing_of(found: Found | Facts, model: str) -> Facts | None:
    """The report's entry for a model; None if there is none."""
    entries = entries_of(facts_of(found), "sharing", model)
    return entries[0] if entries else None


def sharing_figure(
    found: Found | Facts, model: str, *, layer: int | None = None
) -> go.Figure | None:
    """Four panels over the layers, each compared with the previous one: figures of one model, with
    the band of 90 % of random rotations; None if nothing could be compared.

    Args:
        model: name of the model in the report.
        layer: the layer to mark.

    Raises:
        UserError: if this is not a report of two sets.
    """
    facts = sharing_of(found, model)
    given = facts.get("rows") if facts is not None else None
    rows: list[Facts] = [row for row in given or () if isinstance(row, Mapping)]
    if not rows:
        return None
    titles = [title for title, _ in _PANELS]
    figure = make_subplots(
        rows=2,
        cols=2,
        subplot_titles=[titles[0], titles[1], _ANGLES, titles[2]],
        horizontal_spacing=0.1,
        vertical_spacing=0.2,
    )
    for (title, curves), (row, column) in zip(_PANELS, ((1, 1), (1, 2), (2, 2)), strict=True):
        for k, (name, words, color) in enumerate(curves):
            _add_measured(figure, rows, name, words, color, k, row, column)
        figure.update_yaxes(title={"text": title.split(" of ")[0].lower()}, row=row, col=column)
    for row, column in ((1, 2), (2, 2)):
        figure.update_yaxes(title={"text": "share"}, rangemode="tozero", row=row, col=column)
    _add_angles(figure, rows)
    last = max(int(row.get("following", 0)) for row in rows)
    figure.update_xaxes(**layer_axis(last + 1) | {"title": None})
    figure.update_xaxes(title={"text": "layer and the previous one"}, row=2)
    figure.update_yaxes(zeroline=True, zerolinecolor=clear(NULL, 0.5))
    if layer is not None and 0 < layer <= last:
        mark = {"fillcolor": clear(NULL, 0.18), "line_width": 0, "layer": "below"}
        figure.add_vrect(x0=layer - 0.5, x1=layer + 0.5, row="all", col="all", **mark)
    return name_panels(figure, n_rows=2, n_columns=2, height=210)


def _add_measured(
    figure: go.Figure,
    rows: Sequence[Facts],
    name: str,
    words: str,
    color: str,
    nth: int,
    row: int,
    column: int,
) -> None:
    """A figure over the layers and the band of random rotations behind it."""
    measured = [each.get(name) for each in rows]
    known = [
        (int(each.get("following", 0)), found)
        for each, found in zip(rows, measured, strict=True)
        if isinstance(found, Mapping)
    ]
    if not known:
        return
    at = [layer for layer, _ in known]
    low, high, median = (
        [number_of(each, f"random_{end}") for _, each in known] for end in ("low", "high", "median")
    )
    where = {"row": row, "col": column}
    null = f"{words}, random rotations"
    add_band(figure, at, low, high, NULL, null, **where)
    figure.add_scatter(
        x=at,
        y=median,
        mode="lines",
        line={"color": NULL, "dash": _DASHES[nth], "width": 1.5},
        name=null,
        hovertemplate="layers %{x}: %{y:.3f}<extra>random rotations, median</extra>",
        **where,
    )
    figure.add_scatter(
        x=at,
        y=[number_of(each, "value") for _, each in known],
        customdata=[
            f"{number(a, '.3f')} to {number(b, '.3f')}" for a, b in zip(low, high, strict=True)
        ],
        text=[f"{layer - 1} and {layer}" for layer in at],
        mode="lines+markers",
        line={"color": color, "width": 2},
        marker={"size": 7, "symbol": _MARKS[nth]},
        name=words,
        hovertemplate="layers %{text}: %{y:.3f}<br>90 % of random rotations: %{customdata}"
        f"<extra>{words}</extra>",
        **where,
    )


def _add_angles(figure: go.Figure, rows: Sequence[Facts]) -> None:
    """The smallest and the middle principal angle, each beside that of random spans."""
    for is_random in (True, False):
        known = [
            (int(each.get("following", 0)), sorted(angles))
            for each in rows
            if (angles := each.get("angles_random" if is_random else "angles"))
        ]
        for nth, (words, place) in enumerate((("smallest", 0.0), ("middle", 0.5))):
            name = f"{words} angle{', random spans' if is_random else ''}"
            line = {"color": UPDATE, "width": 2}
            if is_random:
                line = {"color": NULL, "dash": _DASHES[nth], "width": 1.5}
            figure.add_scatter(
                x=[layer for layer, _ in known],
                y=[angles[int(place * (len(angles) - 1))] for _, angles in known],
                text=[f"{layer - 1} and {layer}" for layer, _ in known],
                mode="lines" if is_random else "lines+markers",
                line=line,
                marker={"size": 7, "symbol": _MARKS[nth]},
                name=name,
                hovertemplate=f"layers %{{text}}: %{{y:.1f}}°<extra>{name}</extra>",
                row=2,
                col=1,
            )
    figure.update_yaxes(title={"text": "degrees"}, range=[0, 95], dtick=30, row=2, col=1)
