"""The growth of a stream as a page: norms, shares and cosines by layer, and zero-layer paths."""

from __future__ import annotations

import html
import math

import plotly.graph_objects as go

from projector.corpus.pieces import readable
from projector.figures.page import Section, Table, page_html
from projector.figures.words import TEMPLATE
from projector.residual.bigrams.paths import Guess, ZeroLayer
from projector.residual.flow import words
from projector.residual.flow.records import Flow
from projector.residual.flow.stream import Stream
from projector.residual.flow.words import PATHS, number

_GREY, _BLUE, _ORANGE, _GREEN, _BAND = "#52606d", "#2166ac", "#b35806", "#1b7837", "#cbd2d9"
_HEIGHT = 380
_MOST_TOKENS = 512
_Row = tuple[str | int | float | None, ...]


def stream_page(found: Stream) -> str:
    """The whole report as HTML."""
    flow = found.flow
    sections = [
        Section(
            "Norms by layer",
            "The curves show the norm of the stream before each layer and after the last one, of "
            "all that each layer adds (its update), and of what its attention and its MLP add "
            f"without biases. The axis is logarithmic.\n\n{words.tokens_words(flow)} "
            f"{words.outlier_words(flow)}",
            norms_figure(flow),
        ),
        Section(
            "Shares of each update",
            "The bars show how much of a layer's update its attention, its MLP and its biases "
            "make up: ⟨part, update⟩ / ‖update‖². The shares of a layer sum to 1; a part that "
            "works against the others has a negative share.",
            shares_figure(flow),
        ),
        *_heads_sections(flow),
        Section(
            "Successive updates",
            f"{words.successive_words(flow)}\n\nThe bars are the cosines of each layer's update "
            "and the next one's. Lines are means over layers; the grey band is where the mean lies "
            "when the same layers are put in a random order. In the matrix each cell is the mean "
            "cosine of the updates of two layers.",
            successive_figure(flow) if len(flow.rows) > 1 else None,
        ),
    ]
    if len(flow.rows) > 1:
        sections.append(Section("Updates of pairs of layers", figure=cosines_figure(flow)))
    if flow.norms is not None and found.text is not None:
        sections.append(
            Section(
                "Norms by token",
                "The norm of each token's vector before the first layer and after each one.",
                tokens_figure(flow, found.text),
            )
        )
    sections += _zero_layer_sections(found)
    sections.append(Section("Numbers", table=_layer_table(flow)))
    if flow.outliers:
        sections.append(_outlier_section(flow))
    return page_html(f"Residual stream of {found.model}", _lead(found), sections)


def _lead(found: Stream) -> str:
    if found.text is not None:
        text = readable("".join(found.text))
        what = f"Prompt: {text if len(text) < 400 else text[:400] + '…'}"
    else:
        notes = "".join(f" ({note})" for note in found.notes)
        what = f"Corpus: {found.corpus}{notes}"
    parts = ", ".join(f"{each.name} {number(each.norm)}" for each in found.flow.embedding)
    return (
        f"{what}\n\nEvery part of a transformer adds to the residual stream; this page shows how "
        f"much each layer adds, and how. {words.closing_words(found.flow)}\n\nNorms of what the "
        f"first layer reads: {parts}."
    )


def _layout(figure: go.Figure, y: str, **more: object) -> go.Figure:
    figure.update_layout(
        template=TEMPLATE,
        height=_HEIGHT,
        margin={"l": 10, "r": 10, "t": 30, "b": 10},
        xaxis={
            "title": "layer",
            "dtick": max(1, len(figure.data[0].x) // 16),
            "range": [-0.5, len(figure.data[0].x) - 0.5],
        },
        yaxis={"title": y},
        legend={"orientation": "h", "y": 1.1},
    )
    figure.update_layout(**more)
    return figure


def norms_figure(flow: Flow) -> go.Figure:
    """Norms over layers of the stream, the updates, attention and the MLP."""
    layers = [row.layer for row in flow.rows]
    figure = go.Figure()
    stream = [*(row.before for row in flow.rows), flow.rows[-1].after]
    curves: list[tuple[str, str, list[float | None]]] = [
        ("stream", _GREY, list(stream)),
        ("update", _GREEN, [row.update for row in flow.rows]),
        ("attention", _BLUE, [row.attention for row in flow.rows]),
        ("MLP", _ORANGE, [row.mlp for row in flow.rows]),
    ]
    for name, colour, values in curves:
        if all(value is None for value in values):
            continue
        at = [*layers, layers[-1] + 1][: len(values)]
        figure.add_scatter(
            x=at,
            y=values,
            name=name,
            mode="lines+markers",
            line={"color": colour},
            hovertemplate=f"{name}, layer %{{x}}: %{{y:.3g}}<extra></extra>",
        )
    known = [y for trace in figure.data for y in trace.y if y]
    is_wide = max(known) > 30 * min(known)
    yaxis = {"title": "norm", "type": "log", "dtick": 1 if is_wide else "D2"}
    return _layout(figure, "norm", yaxis=yaxis)


def shares_figure(flow: Flow) -> go.Figure:
    """The parts of each update as stacked bars."""
    layers = [row.layer for row in flow.rows]
    figure = go.Figure()
    shares: list[tuple[str, str, list[float | None]]] = [
        ("attention", _BLUE, [row.attention_share for row in flow.rows]),
        ("MLP", _ORANGE, [row.mlp_share for row in flow.rows]),
        ("biases", _GREY, [row.bias_share for row in flow.rows]),
    ]
    for name, colour, values in shares:
        if any(value is not None for value in values):
            figure.add_bar(
                x=layers,
                y=values,
                name=name,
                marker={"color": colour},
                hovertemplate=f"{name}, layer %{{x}}: %{{y:.1%}}<extra></extra>",
            )
    yaxis = {"title": "share of the update", "tickformat": ".0%"}
    return _layout(figure, "", barmode="relative", yaxis=yaxis)


def _heads_sections(flow: Flow) -> list[Section]:
    said = words.heads_words(flow)
    if not said:
        return []
    text = f"The norm of each head's addition to the stream, averaged over tokens. {said}"
    return [Section("What each head adds", text, heads_figure(flow))]


def heads_figure(flow: Flow) -> go.Figure:
    """The norm of each head's addition, layers by heads."""
    n_heads = max(len(row.heads or ()) for row in flow.rows)
    blank: tuple[float | None, ...] = (None,) * n_heads
    figure = go.Figure(
        go.Heatmap(
            z=[((*(row.heads or ()), *blank))[:n_heads] for row in flow.rows],
            x=list(range(n_heads)),
            y=[row.layer for row in flow.rows],
            zmin=0,
            colorscale="Viridis",
            xgap=1,
            ygap=1,
            hoverongaps=False,
            hovertemplate="L%{y} H%{x}: %{z:.3g}<extra></extra>",
            colorbar={"title": "norm"},
        )
    )
    xaxis = {"title": "head", "dtick": max(1, n_heads // 16)}
    yaxis = {"title": "layer", "dtick": max(1, len(flow.rows) // 16), "autorange": "reversed"}
    height = max(_HEIGHT, 160 + 14 * len(flow.rows))
    return _layout(figure, "", height=height, xaxis=xaxis, yaxis=yaxis)


def successive_figure(flow: Flow) -> go.Figure:
    """Cosines of successive updates, compared with the mean of shuffled layers."""
    rows = [row for row in flow.rows if row.next_cosine is not None]
    names = [f"{row.layer} → {row.layer + 1}" for row in rows]
    figure = go.Figure(
        go.Bar(
            x=names,
            y=[row.next_cosine for row in rows],
            marker={"color": _BLUE},
            hovertemplate="layers %{x}: %{y:.3f}<extra></extra>",
            name="cosine of two updates",
            showlegend=True,
        )
    )
    found = flow.successive
    if found is not None:
        figure.add_hrect(
            y0=found.shuffled_least,
            y1=found.shuffled_most,
            fillcolor=_BAND,
            opacity=0.6,
            line_width=0,
            layer="below",
            name="range of that mean",
            showlegend=True,
        )
        for name, y, colour, dash in (
            ("mean, in order", found.mean, _BLUE, "solid"),
            ("mean, layers shuffled", found.shuffled_mean, _GREY, "dash"),
        ):
            line = {"color": colour, "dash": dash}
            ends = [names[0], names[-1]]
            figure.add_scatter(x=ends, y=[y, y], name=name, mode="lines", line=line)
    xaxis = {"title": "layers", "type": "category", "range": None}
    return _layout(figure, "cosine", xaxis=xaxis)


def cosines_figure(flow: Flow) -> go.Figure:
    """The mean cosine of the updates of each pair of layers."""
    n = len(flow.rows)
    figure = go.Figure(
        go.Heatmap(
            z=flow.cosines,
            x=list(range(n)),
            y=list(range(n)),
            zmin=-1,
            zmax=1,
            colorscale="RdBu_r",
            xgap=1,
            ygap=1,
            hovertemplate="layers %{y} and %{x}: %{z:.3f}<extra></extra>",
            colorbar={"title": "cosine"},
        )
    )
    step = max(1, n // 16)
    axis = {"title": "layer", "dtick": step}
    reverse = {**axis, "autorange": "reversed", "scaleanchor": "x", "constrain": "domain"}
    return _layout(figure, "", height=480, xaxis={**axis, "constrain": "domain"}, yaxis=reverse)


def tokens_figure(flow: Flow, texts: tuple[str, ...]) -> go.Figure:
    """Norms of a prompt's tokens at every layer, on a logarithmic scale."""
    assert flow.norms is not None
    shown = texts[:_MOST_TOKENS]
    norms = [row[: len(shown)] for row in flow.norms]
    logs = [[math.log10(max(value, 1e-12)) for value in row] for row in norms]
    low, high = (f(min(r) if f is min else max(r) for r in logs) for f in (min, max))
    ticks = list(range(math.floor(low), math.ceil(high) + 1))
    rows = ["before 0", *(str(row.layer) for row in flow.rows)]
    names = [html.escape(readable(text), quote=False) for text in shown]
    figure = go.Figure(
        go.Heatmap(
            z=logs,
            x=list(range(len(shown))),
            y=rows,
            customdata=norms,
            text=[names] * len(rows),
            colorscale="Viridis",
            hovertemplate="%{text}, layer %{y}: %{customdata:.4g}<extra></extra>",
            colorbar={
                "title": "norm",
                "tickvals": ticks,
                "ticktext": [f"{10.0**t:g}" for t in ticks],
            },
        )
    )
    xaxis: dict[str, object] = {"title": "token"}
    if len(shown) <= 60:
        xaxis |= {"tickvals": list(range(len(shown))), "ticktext": names, "tickangle": -60}
    yaxis = {"title": "layer", "type": "category", "autorange": "reversed"}
    height = max(_HEIGHT, 160 + 14 * len(rows))
    return _layout(figure, "", height=height, xaxis=xaxis, yaxis=yaxis)


def _zero_layer_sections(found: Stream) -> list[Section]:
    if found.zero_layer is not None:
        return [_scores_section(found.zero_layer), _examples_section(found.zero_layer)]
    if found.zero_layer_reason is not None:
        return [Section("Zero-layer paths", f"None: {found.zero_layer_reason}")]
    names = list(found.alone[0].guesses)
    rows: tuple[_Row, ...] = tuple(
        (each.position, readable(each.text), *(_guess(each.guesses[name]) for name in names))
        for each in found.alone[:_MOST_TOKENS]
    )
    return [
        Section(
            "Zero-layer paths",
            "What each token predicts alone, without attention: its top next token and that "
            f"token's probability. {_path_legend(names)}",
            table=Table(("position", "token", *(PATHS[name][0] for name in names)), rows),
        )
    ]


def _scores_section(found: ZeroLayer) -> Section:
    columns = (
        "prediction",
        "agrees",
        "agrees, shuffled",
        "right",
        "log p",
        "KL",
        "KL, shuffled",
    )
    rows = tuple(
        (
            PATHS[path.name][0],
            f"{path.score.agreement:.1%}",
            f"{path.shuffled.agreement:.1%} (at most {path.shuffled_agreement_most:.1%})",
            f"{path.score.accuracy:.1%}",
            number(path.score.log_probability),
            number(path.score.kl),
            number(path.shuffled.kl),
        )
        for path in found.paths
    )
    text = "\n\n".join(
        [
            *words.zero_layer_words(found),
            _path_legend(list(PATHS)),
            f"{words.scores_legend(found)}.",
        ]
    )
    return Section("Zero-layer paths against bigrams", text, table=Table(columns, rows))


def _path_legend(names: list[str]) -> str:
    return " ".join(f"{PATHS[name][0].capitalize()}: {PATHS[name][1]}." for name in names)


def _examples_section(found: ZeroLayer) -> Section:
    names = list(found.examples[0].guesses)
    rows = tuple(
        (
            readable(each.text),
            f"{each.n:,}",
            f"{readable(each.follows_text)} {each.n_follows / each.n:.0%}",
            *(_guess(each.guesses[name]) for name in names),
        )
        for each in found.examples
    )
    return Section(
        "The most frequent tokens",
        "For each: the token that follows it most often in the text, with its share; and the top "
        "prediction of each path, with its probability.",
        table=Table(("token", "times", "follows", *(PATHS[name][0] for name in names)), rows),
    )


def _guess(guess: Guess) -> str:
    return f"{readable(guess.text)} {guess.probability:.0%}"


def _layer_table(flow: Flow) -> Table:
    columns: dict[str, list[float | None]] = {
        "stream before": [row.before for row in flow.rows],
        "after": [row.after for row in flow.rows],
        "update": [row.update for row in flow.rows],
        "attention": [row.attention for row in flow.rows],
        "attention bias": [row.attention_bias for row in flow.rows],
        "MLP": [row.mlp for row in flow.rows],
        "MLP bias": [row.mlp_bias for row in flow.rows],
        "cosine with the stream": [row.along_stream for row in flow.rows],
        "with the next update": [row.next_cosine for row in flow.rows],
    }
    shown = {k: v for k, v in columns.items() if any(value is not None for value in v)}
    rows: tuple[_Row, ...] = tuple(
        (row.layer, *(number(values[i]) for values in shown.values()))
        for i, row in enumerate(flow.rows)
    )
    return Table(("layer", *shown), rows)


def _outlier_section(flow: Flow) -> Section:
    rows = tuple(
        (
            readable(each.text),
            "first of a sequence" if each.is_first else "",
            f"{each.n:,}",
            "before layer 0" if each.layer < 0 else f"after layer {each.layer}",
            "not finite" if each.times_usual is None else f"{each.times_usual:,.1f}",
        )
        for each in flow.outliers
    )
    return Section(
        "Tokens with an outlier norm",
        words.outlier_words(flow),
        table=Table(("token", "", "times", "largest at", "norm / median"), rows),
    )
