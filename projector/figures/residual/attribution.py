"""An attribution as a page: its parts as bars, and as a grid of layers by heads and MLP."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from projector.corpus.pieces import readable
from projector.figures.page import Section, Table, page_html
from projector.figures.words import TEMPLATE
from projector.residual.flow.words import number
from projector.residual.logits.records import ROUNDING, AttributedPart, Attribution
from projector.residual.readings.records import Reading
from projector.residual.readings.words import reading_words

_POSITIVE, _NEGATIVE, _CONTROL = "#d6604d", "#4393c3", "#1f2933"
_N_BARS, _N_NEURON_BARS, _N_ROWS = 24, 20, 60
# Kinds with a column of their own in the grid, behind the heads.
_COLUMNS = ("attention", "attention bias", "mlp", "mlp bias", "rounding")


def attribution_page(found: Attribution) -> str:
    """The whole report as HTML."""
    sections = [
        _steps_section(found),
        Section(
            "Strongest parts",
            f"The {min(_N_BARS, len(found.parts))} parts with the largest contributions. Red "
            f"raises {what(found)}, blue lowers it. {control_text(found)}",
            bars_figure(found.strongest(_N_BARS)),
        ),
        Section(
            "By layer",
            "Each row is a layer, each column a head, or the layer's MLP and biases. Parts "
            "outside the layers, such as the embedding, are in the tables.",
            grid_figure(found),
        ),
    ]
    if found.neurons:
        sections.append(
            Section(
                "Strongest neurons",
                "The MLP neurons with the largest contributions. They are shares of the MLPs "
                "above, not additional parts: a layer's neurons sum to its MLP."
                + (
                    f"\n\nSome layers have none: {found.neurons_left_out}."
                    if found.neurons_left_out
                    else ""
                ),
                bars_figure([p for p in found.neurons if p.kind == "neuron"][:_N_NEURON_BARS]),
                _table(found, found.neurons),
            )
        )
    elif found.neurons_left_out:
        sections.append(Section("Neurons", f"Not attributed: {found.neurons_left_out}."))
    sections += [
        Section("Sums by kind", table=_kinds_table(found)),
        _parts_section(found),
    ]
    return page_html(title(found), lead(found), sections)


def title(found: Attribution) -> str:
    """The title of the page."""
    return f"Attribution of {what(found)} · {found.model}"


def what(found: Attribution) -> str:
    """Describe the attributed value: a logit, or the difference of two, and where it is read."""
    token = _quoted(found.token_text)
    place = "" if found.until is None else f" that the lens reads at {_place(found.until)}"
    if found.against_text is None:
        return f"the logit of {token}{place}"
    return f"the logit of {token} minus that of {_quoted(found.against_text)}{place}"


def owner(found: Attribution) -> str:
    """The owner of the logit: ``the model's own`` or the lens's own."""
    return "the model's own" if found.until is None else "the lens's own"


def _place(until: tuple[int, str]) -> str:
    return reading_words(Reading(*until))


def lead(found: Attribution) -> str:
    """The introduction: the numbers, where they were read, and how well they add up."""
    before = "".join(found.texts[: found.position + 1])
    shown = readable(before, running=False)
    if len(shown) > 300:
        shown = f"…{shown[-300:]}"
    likely = ", ".join(f"{_quoted(text)} {share:.1%}" for text, _, share in found.top)
    sentences = [
        f"Prompt up to position {found.position}: {shown}",
        f"{'The model' if found.until is None else 'The lens'}'s most likely next "
        f"tokens: {likely}. T{what(found)[1:]} is {signed(found.logit)}.",
        "Each part's value is its contribution to this, with the final norm's scale fixed at its "
        f"value for this position. {readout_text(found)}".strip(),
        errors_text(found),
    ]
    return "\n\n".join(sentences)


def readout_text(found: Attribution) -> str:
    """Describe the model's scale and softcap of logits, and the attributed value; "" if there are
    none.
    """
    texts = []
    if found.scale != 1:
        texts.append(
            f"The model multiplies its logits by {found.scale:.6g}, and the parts' values include "
            "this factor."
        )
    if found.softcap is not None:
        texts.append(
            f"The model caps its logits at ±{found.softcap:g}. The parts attribute the logit "
            "before the cap; the effect of the cap is a separate step."
        )
    return " ".join(texts)


def control_text(found: Attribution) -> str:
    """Explain the control of each part."""
    if found.n_controls < 2:
        return ""
    kind = "tokens" if found.against is None else "pairs of tokens"
    return (
        f"The diamond shows the same part's contribution to {found.n_controls} random {kind} of "
        "the vocabulary: the mean, and one standard deviation either way. A part within that "
        "range is not specific to this token."
    )


def errors_text(found: Attribution) -> str:
    """Describe how well the sums close."""
    stream, parts = number(found.additivity_error, ".1e"), number(found.closure_error, ".1e")
    text = (
        f"Relative error of the stream's sum: {stream}. Error of the parts' sum, relative to their "
        f"sizes' sum: {parts} (at most {number(found.closure_bound, '.0e')} is accepted)."
    )
    if any(part.kind == ROUNDING for part in found.parts):
        text += (
            " Both leave out the rounding of half precision, which is a separate part: "
            f"{signed(found.rounding)} of the logit and {found.rounding_share:.1%} of the sizes' "
            "sum."
        )
    return text


def signed(value: float, digits: int = 3) -> str:
    """A number with its sign, with a typographic minus."""
    return number(value, f"+.{digits}f")


def kind_text(kind: str) -> str:
    """The displayed name of a kind of part."""
    return kind.replace("mlp", "MLP")


def control_cell(part: AttributedPart) -> str:
    """A part's control: mean ± standard deviation."""
    if part.control_mean is None or part.control_sd is None:
        return "–"
    return f"{signed(part.control_mean, 2)} ± {part.control_sd:.2f}"


def bars_figure(parts: Sequence[AttributedPart]) -> go.Figure:
    """One bar per part, the first at the top, with its control as a grey mark with whiskers."""
    rows = [f"{part.name}  {signed(part.value, 2)}" for part in parts]
    figure = go.Figure(
        go.Bar(
            x=[part.value for part in parts],
            y=rows,
            orientation="h",
            marker_color=[_POSITIVE if part.value >= 0 else _NEGATIVE for part in parts],
            customdata=[part.name for part in parts],
            hovertemplate="%{customdata}: %{x:+.4f}<extra></extra>",
            showlegend=False,
        )
    )
    known = [k for k, part in enumerate(parts) if part.control_mean is not None]
    if known:
        figure.add_trace(
            go.Scatter(
                x=[parts[k].control_mean for k in known],
                y=[rows[k] for k in known],
                error_x={
                    "type": "data",
                    "array": [parts[k].control_sd for k in known],
                    "color": _CONTROL,
                    "thickness": 1.5,
                    "width": 3,
                },
                mode="markers",
                marker={"color": _CONTROL, "size": 6, "symbol": "diamond"},
                customdata=[parts[k].name for k in known],
                hovertemplate="random tokens · %{customdata}: %{x:+.4f}<extra></extra>",
                name="random tokens",
            )
        )
    figure.update_yaxes(autorange="reversed", automargin=True, showgrid=False)
    figure.update_xaxes(title="added, in logits", zeroline=True, zerolinecolor="#1f2933")
    figure.update_layout(
        template=TEMPLATE,
        showlegend=bool(known),
        legend={"orientation": "h", "y": 1, "yanchor": "bottom", "x": 0},
        margin={"l": 10, "r": 40, "t": 40, "b": 50},
        height=120 + 24 * max(1, len(parts)),
        bargap=0.25,
    )
    return figure


def grid_figure(found: Attribution) -> go.Figure:
    """A grid of layers by heads, MLP and biases; white is 0, red raises, blue lowers."""
    inside = [part for part in found.parts if part.layer is not None]
    n_heads = max((part.head + 1 for part in inside if part.head is not None), default=0)
    kinds = [kind for kind in _COLUMNS if any(part.kind == kind for part in inside)]
    columns = [*(f"H{head}" for head in range(n_heads)), *map(kind_text, kinds)]
    n_layers = max((part.layer + 1 for part in inside if part.layer is not None), default=0)
    cells = np.full((n_layers, len(columns)), np.nan)
    for part in inside:
        column = part.head if part.head is not None else n_heads + kinds.index(part.kind)
        cells[part.layer, column] = part.value
    sizes = np.abs(cells[np.isfinite(cells)])
    # One or two huge parts would leave all others white.
    limit = float(max(np.quantile(sizes, 0.98), 1e-9)) if sizes.size else 1.0
    figure = go.Figure(
        go.Heatmap(
            z=cells,
            x=columns,
            y=[f"L{layer}" for layer in range(n_layers)],
            colorscale="RdBu_r",
            zmin=-limit,
            zmax=limit,
            xgap=1,
            ygap=1,
            hoverongaps=False,
            colorbar={"title": "added", "thickness": 14},
            hovertemplate="%{y} %{x}: %{z:+.4f}<extra></extra>",
        )
    )
    figure.update_xaxes(side="top", tickangle=0 if len(columns) < 20 else -60, showgrid=False)
    figure.update_yaxes(autorange="reversed", showgrid=False, dtick=1 if n_layers <= 40 else 4)
    figure.update_layout(
        template=TEMPLATE,
        margin={"l": 10, "r": 10, "t": 60, "b": 60},
        height=180 + 22 * min(n_layers, 60),
        annotations=[
            {
                "text": f"colours end at ±{limit:.2g}; hover for a cell's number",
                "xref": "paper",
                "yref": "paper",
                "x": 0,
                "y": 0,
                "yshift": -30,
                "showarrow": False,
                "font": {"size": 12, "color": _CONTROL},
            }
        ],
    )
    return figure


def _steps_section(found: Attribution) -> Section:
    rows = tuple((step.name, signed(step.adds, 4), signed(step.total, 4)) for step in found.steps)
    kind = "logit" if found.against is None else "difference"
    return Section(
        f"From the stream to the {kind}",
        "The parts of the stream together, then what the model's readout adds to them. The last "
        f"sum is {owner(found)} {kind}, {signed(found.logit, 4)}.",
        table=Table(("step", "adds", "sum so far"), rows),
    )


def _parts_section(found: Attribution) -> Section:
    n_left = len(found.parts) - _N_ROWS
    if n_left <= 0:
        return Section("All parts", table=_table(found, found.strongest()))
    return Section(
        f"The {_N_ROWS} strongest parts",
        f"The other {n_left:,} are in report.json.",
        table=_table(found, found.strongest(_N_ROWS)),
    )


def _kinds_table(found: Attribution) -> Table:
    counts: dict[str, int] = {}
    sizes: dict[str, float] = {}
    for part in found.parts:
        counts[part.kind] = counts.get(part.kind, 0) + 1
        sizes[part.kind] = sizes.get(part.kind, 0.0) + abs(part.value)
    rows = tuple(
        (kind_text(kind), counts[kind], signed(value), f"{sizes[kind]:.3f}")
        for kind, value in found.by_kind().items()
    )
    return Table(("kind", "parts", "sum", "sum of sizes"), rows)


def _table(found: Attribution, parts: Sequence[AttributedPart]) -> Table:
    rows = tuple(
        (
            part.name,
            kind_text(part.kind),
            signed(part.value, 4),
            share_text(found, part),
            control_cell(part),
        )
        for part in parts
    )
    return Table(("part", "kind", "adds", "share of all sizes", "to random tokens"), rows)


def share_text(found: Attribution, part: AttributedPart) -> str:
    """A part's share of the sum of all parts' sizes, with its sign."""
    return f"{signed(100 * found.share(part), 1)} %"


def _quoted(text: str) -> str:
    return f"‘{readable(text)}’"
