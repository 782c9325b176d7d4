"""How faithful the maps are: strips over layers."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from projector.figures.words import TEMPLATE, heading, origin
from projector.projection.faithfulness import FIGURES, Figure
from projector.projection.projection import Projection


def stress_figure(projection: Projection, layout: str | None = None) -> go.Figure:
    """Draw strips over layers, with one row per site, for each figure with a strip: stress,
    neighbours kept.

    A null figure is left blank, with its reason on hover. With several layouts, a layout has no
    strip for a figure without meaning for its objective, and the title says why.

    Args:
        layout: the layout's name; None for all layouts.

    Raises:
        SettingError: if the layout doesn't exist.
    """
    sites, layers = projection.sites, projection.layers
    present = set(projection.maps)
    names = list(projection.layouts) if layout is None else [layout]
    strips, lacking = _strips(projection, names)
    better = {"low": "; lower is better", "high": "; higher is better"}
    figure = make_subplots(
        rows=len(strips),
        subplot_titles=[
            (f"<b>{html.escape(name)}</b>: " if len(names) > 1 else "")
            + each.strip
            + better.get(each.better, "")
            for name, each in strips
        ],
        vertical_spacing=0.5 / len(strips),
    )
    for row, (name, strip) in enumerate(strips, 1):
        values: list[list[float | None]] = []
        texts: list[list[str]] = []
        hovers: list[list[str]] = []
        for site in sites:
            figures = [
                projection.figures(layer, site, name) if (layer, site) in present else None
                for layer in layers
            ]
            found = [None if f is None else strip.number(f) for f in figures]
            shown = ["–" if v is None else strip.pattern.format(v) for v in found]
            values.append(found)
            texts.append(shown)
            hovers.append(
                [
                    "not in this projection"
                    if f is None
                    else html.escape(strip.reason(f) if v is None else text)
                    for f, v, text in zip(figures, found, shown, strict=True)
                ]
            )
        figure.add_trace(
            go.Heatmap(
                z=values,
                x=[f"layer {layer}" for layer in layers],
                y=sites,
                text=texts,
                texttemplate="%{text}",
                customdata=hovers,
                hovertemplate="%{y}, %{x}: %{customdata}<extra></extra>",
                colorscale="Viridis_r" if strip.better == "low" else "Viridis",
                showscale=False,
                xgap=2,
                ygap=2,
            ),
            row=row,
            col=1,
        )
    figure.update_yaxes(autorange="reversed")
    figure.update_layout(
        template=TEMPLATE,
        title=heading(f"How far the maps can be trusted · {origin(projection)}{_told(lacking)}"),
        margin={"l": 10, "r": 10, "t": 100, "b": 30},
        height=(120 + 45 * max(2, len(sites))) * len(strips),
    )
    return figure


def _strips(
    projection: Projection, names: Sequence[str]
) -> tuple[list[tuple[str, Figure]], dict[str, str]]:
    """Layouts with the figures that are drawn of each; and those that are not, with the reason."""
    strips: list[tuple[str, Figure]] = []
    lacking: dict[str, str] = {}
    for name in names:
        objective = projection.layout(name).settings.objective
        for figure in FIGURES.values():
            reason = figure.lacking(objective)
            if figure.strip and (reason is None or len(names) == 1):
                strips.append((name, figure))
            elif figure.strip:
                lacking[f"{name} has no {figure.name}"] = str(reason)
    return strips, lacking


def _told(lacking: Mapping[str, str]) -> str:
    """Figures that layouts lack and why, as HTML."""
    text = "; ".join(f"{what}: {reason}" for what, reason in lacking.items())
    return f"<br><sup>{html.escape(text)}</sup>" if text else ""
