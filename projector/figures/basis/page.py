"""Each view of a change of basis as one HTML page that needs no network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import torch

from projector.corpus.pieces import readable
from projector.figures.basis.script import plane_script, plane_style
from projector.figures.basis.words import mean, percent, small, sum_words, upper
from projector.figures.page import Section, Table, page_html
from projector.figures.residual.patterns import (
    PATTERN_SCRIPT,
    PATTERN_STYLE,
    pattern_html,
    texts_html,
)
from projector.figures.words import TEMPLATE
from projector.residual.basis.records import (
    ActivationView,
    AttentionView,
    PlaneView,
    SkipView,
)
from projector.storage.places import disk_errors
from projector.storage.replacing import replacing_file

View = PlaneView | AttentionView | SkipView | ActivationView


def plane_data(
    view: View, *, position: int | None = None, relu: bool = False, pattern: bool = False
) -> dict[str, Any]:
    """The data of a view for ``mount`` of the plane's script, used by the page and the dashboard.

    Args:
        position: position of the token to draw the mixture of, from 0; the last token by default.
        relu: whether the ReLU after a draggable matrix is initially on.
        pattern: whether to include the whole pattern, so that the mixture follows the pointer.
    """
    if isinstance(view, PlaneView):
        return view.as_dict() | ({"relu": True} if relu else {})
    if view.plane is None:
        raise ValueError("this view has no plane")
    data = view.plane.as_dict()
    if isinstance(view, AttentionView):
        chosen = len(view.tokens) - 1 if position is None else position
        shares = [each.as_dict() for each in (*view.shares, *view.plane.shares)]
        data |= {"selected": chosen, "shares": shares}
        data |= {"pattern": view.pattern} if pattern else {"weights": view.pattern[chosen]}
    return data


def basis_page(view: View, *, position: int | None = None, relu: bool = False) -> str:
    """The page of a view of any kind, with the initial state from :func:`plane_data`."""
    if isinstance(view, AttentionView):
        return attention_page(view, position)
    if isinstance(view, SkipView):
        return skip_page(view)
    if isinstance(view, ActivationView):
        return activation_page(view)
    return map_page(view, relu=relu)


def write_basis_page(view: View, path: Path) -> None:
    """Write the page of a view atomically.

    Raises:
        UserError: if the disk is full or the file can't be written. An existing file is unchanged.
    """
    text = basis_page(view)
    with disk_errors(path), replacing_file(path) as new:
        new.write_text(text, encoding="utf-8")


def map_page(view: PlaneView, *, relu: bool = False) -> str:
    """The page of a linear map: its plane before and after, and the shares that the plane keeps."""
    lead = f"Before: {view.space_before}. After: {view.space_after}."
    if view.space_before == view.space_after:
        lead = f"Before and after: {view.space_before}."
    if view.is_toy:
        lead = "Drag the tips of the two vectors to change the matrix."
    section = _plane_section(plane_data(view, relu=relu), "Before and after")
    return page_html(f"Change of basis: {view.title}", lead, [section])


def attention_page(view: AttentionView, position: int | None = None) -> str:
    """The page of a head: the tokens' values and their mixtures in one plane, and the pattern.

    Args:
        position: position of the initially selected token, from 0; the last token by default.
    """
    data = plane_data(view, position=position, pattern=True)
    pattern = torch.tensor(view.pattern, dtype=torch.float32)
    drawn = pattern_html(pattern, data["selected"], f"pattern of {view.plane.title}")
    whole = f"{PATTERN_STYLE}{texts_html(view.tokens)}{drawn}{PATTERN_SCRIPT}"
    lead = (
        "Each row of A V is a combination of the tokens' values. The coefficients are a row of "
        f"the pattern A. A V differs from the head's output by {small(view.closure_error)} of "
        "its length."
    )
    sections = [
        Section(
            "Values before, their mixtures after",
            f"Coloured lines lead from the values to the mixture of token {data['selected'] + 1}, "
            "or of the token pointed at last. The thicker a line, the larger the coefficient. "
            "Thin grey lines lead from each token's value to its own mixture.",
            trusted_html=plane_html(data),
        ),
        Section(
            "Pattern",
            "Point at a token to see how much it attends to each token.",
            trusted_html=whole,
        ),
    ]
    return page_html(f"Attention as a change of basis: {view.plane.title}", lead, sections)


def skip_page(view: SkipView) -> str:
    """The page of a skip connection: the stream, the addition, and their sum."""
    token = readable(view.tokens[view.position])
    lead = f"Token {view.position + 1} “{token}”. {sum_words(view)}"
    section = _plane_section(plane_data(view), "One plane")
    return page_html(upper(view.plane.title), lead, [section])


def activation_page(view: ActivationView) -> str:
    """The page of activation functions: the function, the share of active neurons, two neurons."""
    sections = []
    if view.curve:
        sections.append(Section("The function", _distance(view), curve_figure(view)))
    known = [row for row in view.layers if row.reason is None]
    if known:
        text = (
            "Share of neurons whose input is above 0, by layer and token. In the table, each "
            "control is the same weights on the same vectors with shuffled coordinates."
        )
        sections.append(Section("Neurons", text, positive_figure(view), _active_table(view)))
    if view.plane is not None:
        sections.append(_plane_section(plane_data(view), upper(view.plane.title)))
    reasons = dict.fromkeys(row.reason for row in view.layers if row.reason is not None)
    for reason in reasons:
        layers = ", ".join(str(row.layer) for row in view.layers if row.reason == reason)
        sections.append(Section("Left out", f"Layers {layers}: {reason}."))
    return page_html("What the activation keeps", view.sentence, sections)


def plane_html(given: Mapping[str, Any]) -> str:
    """The plane alone: style, script and data; at most once per page.

    Args:
        given: the result of :func:`plane_data`.

    Every text of the data reaches the page as data, and the script sets it as text.
    """
    # Within a script only "<" could end it.
    data = json.dumps(given, allow_nan=False).replace("<", "\\u003c")
    return (
        f'<style>{plane_style()}</style><div id="plane"></div>'
        f'<script type="application/json" id="plane-data">{data}</script>'
        f'<script type="module">{plane_script()}\n'
        'mount(document.getElementById("plane"), '
        'JSON.parse(document.getElementById("plane-data").textContent));</script>'
    )


def curve_figure(view: ActivationView) -> go.Figure:
    """The activation function next to max(x, 0)."""
    x, y = [point[0] for point in view.curve], [point[1] for point in view.curve]
    figure = go.Figure()
    figure.add_scatter(
        x=x, y=[max(0.0, each) for each in x], name="ReLU", line={"color": "#9aa5b1", "dash": "dot"}
    )
    figure.add_scatter(x=x, y=y, name="this model", line={"color": "#2166ac"})
    figure.update_layout(
        template=TEMPLATE, xaxis_title="input", yaxis_title="output", height=320, margin={"t": 20}
    )
    return figure


def positive_figure(view: ActivationView) -> go.Figure:
    """Share of neurons with an input above 0, with one row per layer and one column per token."""
    known = [row for row in view.layers if row.reason is None]
    texts = [readable(text) for text in view.tokens]
    numbers = list(range(1, len(texts) + 1))
    figure = go.Figure(
        go.Heatmap(
            z=[list(row.positive) for row in known],
            x=numbers,
            y=[row.layer for row in known],
            customdata=[texts] * len(known),
            zmin=0,
            zmax=1,
            colorscale="Viridis",
            colorbar={"tickformat": ".0%", "title": "above 0"},
            hovertemplate="layer %{y}, token %{x} “%{customdata}”: %{z:.1%}<extra></extra>",
        )
    )
    figure.update_layout(
        template=TEMPLATE,
        height=max(260, 90 + 22 * len(known)),
        margin={"t": 20},
        xaxis={
            "title": "token",
            "tickvals": numbers,
            "ticktext": _ticks(texts),
        },
        yaxis={"title": "layer", "dtick": 1 if len(known) < 16 else 5},
    )
    return figure


def _ticks(texts: list[str]) -> list[str]:
    """A token's text below its column, as Plotly shows it: its own marks are made plain."""
    shown = [text[:12].replace("&", "&amp;").replace("<", "&lt;") for text in texts]
    return shown if len(shown) <= 40 else [""] * len(shown)


def _active_table(view: ActivationView) -> Table:
    rows = tuple(
        (
            f"{row.layer}",
            percent(mean(row.positive)),
            percent(mean(row.positive_shuffled)),
            percent(mean(row.active)),
            percent(mean(row.shuffled)),
            row.function + (", gated" if row.is_gated else ""),
        )
        for row in view.layers
        if row.reason is None
    )
    return Table(("layer", "input above 0", "control", "active", "its control", "function"), rows)


def _plane_section(data: Mapping[str, Any], title: str) -> Section:
    return Section(title, trusted_html=plane_html(data))


def _distance(view: ActivationView) -> str:
    if view.relu_distance is None or view.relu_distance <= 1e-6:
        return "It is max(x, 0) exactly."
    return f"It differs from max(x, 0) by {view.relu_distance:.2f} at most."
