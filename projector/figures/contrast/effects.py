"""What the difference of means does when it is added to the stream or projected out of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from projector.corpus.pieces import readable
from projector.figures.contrast.series import (
    Facts,
    Found,
    entries_of,
    facts_of,
    number_of,
    set_names,
    shown,
)
from projector.figures.contrast.style import NULL, POSITIVE, clear, lay_out
from projector.residual.flow.words import number

# The field of an effect, its sign, and what it is called: in the legend, and under the pointer.
_CONTROLS = (
    ("random", "x-thin", "random directions of the same norm", "random direction"),
    ("permuted", "circle-open", "permuted labels, of the same norm", "permuted labels"),
)


def effects_of(found: Found | Facts, model: str) -> list[Facts]:
    """The effects on a model that the report holds."""
    entries = entries_of(facts_of(found), "directions", model)
    return [each for each in entries if number_of(each, "effect") is not None]


def why_no_effects(found: Found | Facts, model: str) -> str:
    """Why the report holds no effects on a model, as a sentence."""
    entries = entries_of(facts_of(found), "directions", model)
    reasons = list(dict.fromkeys(str(each["reason"]) for each in entries if each.get("reason")))
    if not reasons:
        return "The direction was not tested on this model."
    return f"The direction was not tested on this model: {'; '.join(reasons)}."


def effects_figure(
    found: Found | Facts, model: str, *, layer: int | None = None
) -> go.Figure | None:
    """A panel for each set (and continuation): the effect of every change with its interval, and
    those of random directions and of permuted labels of the same norm as crosses and rings; None
    where nothing was tested.

    Args:
        model: its name in the report.
        layer: one that is marked.

    Raises:
        UserError: if this is no report of two sets.
    """
    facts = facts_of(found)
    effects = effects_of(facts, model)
    panels = list(dict.fromkeys(map(_panel_of, effects)))
    if not panels:
        return None
    # A row for the perplexity, or for each continuation.
    n_columns = len({which for _, _, which in panels})
    n_rows = -(-len(panels) // n_columns)
    changes = list(dict.fromkeys(map(change_words, effects)))
    layers = sorted({int(each.get("layer", 0)) for each in effects})
    figure = make_subplots(
        rows=n_rows,
        cols=n_columns,
        subplot_titles=[_title(panel, set_names(facts)) for panel in panels],
        horizontal_spacing=0.07,
        vertical_spacing=0.35 / n_rows,
    )
    for number_, panel in enumerate(panels):
        where: dict[str, Any] = {"row": 1 + number_ // n_columns, "col": 1 + number_ % n_columns}
        own = [each for each in effects if _panel_of(each) == panel]
        _add_effects(figure, own, layers, changes, is_first=number_ == 0, **where)
        figure.update_yaxes(range=_reach(own), **where)
        figure.update_xaxes(
            tickvals=list(range(len(layers) * (len(changes) + 1))),
            ticktext=[text for _ in layers for text in (*changes, "")],
            tickangle=-45,
            **where,
        )
        for k, each in enumerate(layers):
            start = k * (len(changes) + 1)
            _name_layer(figure, start, len(changes), each, is_marked=each == layer, **where)
    figure.update_yaxes(zeroline=True, zerolinecolor=NULL)
    figure.update_yaxes(title={"text": "effect, nats"}, col=1)
    return lay_out(figure, 120 + 380 * n_rows, top=90)


def _panel_of(effect: Facts) -> tuple[str, str, str]:
    return (
        str(effect.get("measure")),
        str(effect.get("continuation") or ""),
        str(effect.get("set")),
    )


def _title(panel: tuple[str, str, str], names: tuple[str, str]) -> str:
    measure, continuation, which = panel
    sets = {
        "positive": names[0],
        "negative": names[1],
        "difference": f"{names[1]} less {names[0]}",
    }
    after = f" of ‘{shown(readable(continuation), 24)}’" if continuation else ""
    return f"{shown(measure)}{after}: {sets.get(which, shown(which))}"


def change_words(effect: Facts) -> str:
    """What was done to the stream, in a few words."""
    scale = number_of(effect, "scale")
    if scale is None:
        return "projected out"
    return f"added × {number(scale, '.3g')}"


def _add_effects(
    figure: go.Figure,
    effects: Sequence[Facts],
    layers: Sequence[int],
    changes: Sequence[str],
    *,
    is_first: bool,
    **where: Any,
) -> None:
    def place(effect: Facts) -> int:
        layer = layers.index(int(effect.get("layer", 0)))
        return layer * (len(changes) + 1) + changes.index(change_words(effect))

    for control, symbol, name, hover in _CONTROLS:
        drawn = [
            (place(each), value)
            for each in effects
            for value in each.get(control) or ()
            if isinstance(value, int | float)
        ]
        # A report may hold one control alone.
        if not drawn and control != "random":
            continue
        figure.add_scatter(
            x=[at for at, _ in drawn],
            y=[value for _, value in drawn],
            mode="markers",
            marker={"symbol": symbol, "size": 9, "line": {"width": 2, "color": NULL}},
            marker_color=NULL,
            name=name,
            showlegend=is_first,
            hovertemplate=f"%{{y:.3f}}<extra>{hover}</extra>",
            **where,
        )
    values = [number_of(each, "effect") or 0.0 for each in effects]
    lows, highs = (
        [number_of(each, f"effect_{end}") for each in effects] for end in ("low", "high")
    )
    figure.add_scatter(
        x=[place(each) for each in effects],
        y=values,
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [0 if h is None else h - v for h, v in zip(highs, values, strict=True)],
            "arrayminus": [0 if a is None else v - a for a, v in zip(lows, values, strict=True)],
            "color": POSITIVE,
            "thickness": 1.5,
            "width": 4,
        },
        text=[f"layer {each.get('layer')}, {change_words(each)}" for each in effects],
        mode="markers",
        marker={"size": 9, "color": POSITIVE},
        name="difference of means (95 % interval)",
        showlegend=is_first,
        hovertemplate="%{text}: %{y:.3f} nats<extra>difference of means</extra>",
        **where,
    )


def _reach(effects: Sequence[Facts]) -> list[float]:
    """Of a panel's axis: all that is drawn, with room for the layers' names above it."""
    ends = ("effect", "effect_low", "effect_high")
    values = [v for each in effects for end in ends if (v := number_of(each, end)) is not None]
    values += [
        float(v) for each in effects for control, *_ in _CONTROLS for v in each.get(control) or ()
    ]
    low, high = min(0.0, *values), max(0.0, *values)
    size = high - low or 1.0
    return [low - 0.06 * size, high + 0.18 * size]


def _name_layer(
    figure: go.Figure, start: int, n: int, layer: int, *, is_marked: bool, **where: Any
) -> None:
    """A background behind the changes of a layer, with the layer's number."""
    figure.add_vrect(
        x0=start - 0.5,
        x1=start + n - 0.5,
        fillcolor=clear(NULL, 0.25 if is_marked else 0.08),
        line_width=0,
        layer="below",
        annotation={"text": f"layer {layer}", "font": {"size": 12}},
        annotation_position="top left",
        **where,
    )
