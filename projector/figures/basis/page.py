"""Each view of a change of basis as one HTML page that needs no network."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import plotly.graph_objects as go
import torch

from projector.corpus.pieces import readable
from projector.figures.basis.script import plane_script, plane_style
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
    Share,
    SkipView,
)
from projector.storage.places import disk_errors
from projector.storage.replacing import replacing_file

View = PlaneView | AttentionView | SkipView | ActivationView


def basis_page(view: View) -> str:
    """The page of a view, whichever it is."""
    if isinstance(view, AttentionView):
        return attention_page(view)
    if isinstance(view, SkipView):
        return skip_page(view)
    if isinstance(view, ActivationView):
        return activation_page(view)
    return map_page(view)


def write_basis_page(view: View, path: Path) -> None:
    """Write the page of a view in one step.

    Raises:
        UserError: if the disk is full or the file can't be written. What was there is as it was.
    """
    text = basis_page(view)
    with disk_errors(path), replacing_file(path) as new:
        new.write_text(text, encoding="utf-8")


def map_page(view: PlaneView) -> str:
    """A linear map: its plane before and after, and what the plane keeps."""
    lead = f"Before: {view.space_before}. After: {view.space_after}."
    if view.space_before == view.space_after:
        lead = f"Before and after: {view.space_before}."
    if view.is_toy:
        lead = "Drag the tips of the two vectors to change the matrix."
    section = _plane_section(view, "Before and after")
    return page_html(f"Change of basis: {view.title}", lead, [section])


def attention_page(view: AttentionView) -> str:
    """A head: the tokens' values and their mixtures in one plane, and the pattern."""
    pattern = torch.tensor(view.pattern, dtype=torch.float32)
    drawn = pattern_html(pattern, len(view.tokens) - 1, f"pattern of {view.plane.title}")
    whole = f"{PATTERN_STYLE}{texts_html(view.tokens)}{drawn}{PATTERN_SCRIPT}"
    lead = (
        "Each row of A V is a combination of the tokens' values. The coefficients are a row of the "
        f"pattern A. A V differs from what the head gives by {_small(view.closure_error)} of it."
    )
    sections = [
        Section(
            "Values before, their mixtures after",
            "Lines lead from the values to the mixture of the last token, or of the one that was "
            "pointed at last. The thicker a line, the larger the coefficient.",
            trusted_html=plane_html(
                view.plane, {"pattern": view.pattern, "selected": len(view.tokens) - 1}
            ),
        ),
        Section("Pattern", "Point at a token to see what it takes from each.", trusted_html=whole),
        share_section(view.shares),
    ]
    return page_html(f"Attention as a change of basis: {view.plane.title}", lead, sections)


def skip_page(view: SkipView) -> str:
    """A skip connection: the stream, what is added, and their sum."""
    token = readable(view.tokens[view.position])
    lead = f"Token {view.position} “{token}”. {_sum_words(view)}"
    return page_html(_upper(view.plane.title), lead, [_plane_section(view.plane, "One plane")])


def activation_page(view: ActivationView) -> str:
    """The activation functions: the function, the share of active neurons, two neurons."""
    sections = []
    if view.curve:
        sections.append(Section("The function", _distance(view), curve_figure(view)))
    known = [row for row in view.layers if row.reason is None]
    if known:
        text = (
            "Share of neurons that are active, by layer and token. In the table, each control "
            "is the same weights on the same vectors with their coordinates shuffled."
        )
        sections.append(Section("Active neurons", text, active_figure(view), _active_table(view)))
    if view.plane is not None:
        sections.append(_plane_section(view.plane, _upper(view.plane.title)))
    reasons = dict.fromkeys(row.reason for row in view.layers if row.reason is not None)
    for reason in reasons:
        layers = ", ".join(str(row.layer) for row in view.layers if row.reason == reason)
        sections.append(Section("Left out", f"Layers {layers}: {reason}."))
    return page_html("What the activation keeps", view.sentence, sections)


def plane_html(view: PlaneView, beyond: Mapping[str, object] | None = None) -> str:
    """The plane alone: style, script and data; once a page.

    Args:
        beyond: what ``mount`` of ``plane.js`` takes beyond a view's fields.

    Every text of the data reaches the page as data, and the script sets it as text.
    """
    # Within a script only "<" could end it.
    data = json.dumps(view.as_dict() | dict(beyond or {}), allow_nan=False).replace("<", "\\u003c")
    return (
        f'<style>{plane_style()}</style><div id="plane"></div>'
        f'<script type="application/json" id="plane-data">{data}</script>'
        f'<script type="module">{plane_script()}\n'
        'mount(document.getElementById("plane"), '
        'JSON.parse(document.getElementById("plane-data").textContent));</script>'
    )


def share_table(shares: Sequence[Share]) -> Table:
    """Shares, each beside its control; what can't be given is a dash."""
    rows = tuple(
        (
            share.name,
            percent(share.value),
            percent(share.control),
            f"{percent(share.control_low)} to {percent(share.control_high)}"
            if share.control_low is not None
            else "–",
            share.control_name if share.reason is None else share.reason,
        )
        for share in shares
    )
    return Table(("share", "found", "control", "5–95 % of controls", "control is"), rows)


def share_section(shares: Sequence[Share]) -> Section:
    """The table under its heading."""
    return Section(
        "What mixing keeps",
        "Each share stands next to that of its control.",
        table=share_table(shares),
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


def active_figure(view: ActivationView) -> go.Figure:
    """Share of active neurons: a row a layer, a column a token."""
    known = [row for row in view.layers if row.reason is None]
    texts = [readable(text) for text in view.tokens]
    figure = go.Figure(
        go.Heatmap(
            z=[list(row.active) for row in known],
            x=list(range(len(texts))),
            y=[row.layer for row in known],
            customdata=[texts] * len(known),
            zmin=0,
            zmax=1,
            colorscale="Viridis",
            colorbar={"tickformat": ".0%", "title": "active"},
            hovertemplate="layer %{y}, token %{x} “%{customdata}”: %{z:.1%}<extra></extra>",
        )
    )
    figure.update_layout(
        template=TEMPLATE,
        height=max(260, 90 + 22 * len(known)),
        margin={"t": 20},
        xaxis={"title": "token", "tickvals": list(range(len(texts))), "ticktext": _ticks(texts)},
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
            percent(_mean(row.active)),
            percent(_mean(row.shuffled)),
            percent(_mean(row.positive)),
            percent(_mean(row.positive_shuffled)),
            row.function + (", gated" if row.is_gated else ""),
        )
        for row in view.layers
        if row.reason is None
    )
    return Table(("layer", "active", "control", "input above 0", "its control", "function"), rows)


def _plane_section(view: PlaneView, title: str) -> Section:
    return Section(title, trusted_html=plane_html(view))


def _sum_words(view: SkipView) -> str:
    words = "x, what is added and their sum are three vectors of one plane."
    if view.cosine is not None:
        cosine = f"{view.cosine:.2f}".replace("-", "−")
        words += f" The cosine of x and what is added is {cosine}."
    if view.closure_error == 0:
        words += " x plus all that attention adds is the model's next stream exactly."
    elif view.closure_error is not None:
        words += (
            " x and all that attention adds differ from the model's next stream by "
            f"{_small(view.closure_error)} of it."
        )
    return words


def _distance(view: ActivationView) -> str:
    if view.relu_distance is None or view.relu_distance <= 1e-6:
        return "It is max(x, 0) exactly."
    return f"It differs from max(x, 0) by {view.relu_distance:.2f} at most."


def percent(share: float | None) -> str:
    """A share as text, such as "12.3 %"; a dash where there is none."""
    return "–" if share is None else f"{100 * share:.1f} %"


def _small(error: float) -> str:
    return f"{error:.0e}".replace("-", "−")


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
