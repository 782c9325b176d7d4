"""The heads of a model as a page: kinds, circuits, patterns, and paths through two heads."""

from __future__ import annotations

import html
from collections.abc import Iterator

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from projector.figures.page import Section, Table, page_html
from projector.figures.residual.circuits import (
    composition_sections,
    head_name,
    pairs_html,
    signed_low,
    virtual_sections,
)
from projector.figures.residual.kinds import COLOURS, LETTERS, background_of, letters_of
from projector.figures.residual.patterns import (
    PATTERN_SCRIPT,
    PATTERN_STYLE,
    pattern_html,
    texts_html,
)
from projector.figures.words import TEMPLATE
from projector.residual.heads.kinds import KINDS, LEAST_PERCENTILE, HeadRow, Heads
from projector.residual.heads.report import HeadsReport

_N_STRONGEST = 4
_GRID_STYLE = """<style>
.kinds { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; margin: .4rem 0 .8rem;
  font-size: .9rem; }
.kinds i { display: inline-block; width: 1.3rem; text-align: center; border-radius: .2rem;
  color: #fff; font-style: normal; margin-right: .35rem; }
.grid { border-collapse: separate; border-spacing: 2px; font: .75rem ui-monospace, monospace; }
.grid th { border: 0; padding: 0 .35rem; font-weight: 400; color: #52606d; text-align: center; }
.grid td { border: 0; padding: 0 .2rem; min-width: 1.9rem; height: 1.45rem; text-align: center;
  border-radius: .2rem; background: #eef1f4; color: #fff; font-weight: 600; cursor: default; }
@media (prefers-color-scheme: dark) { .grid td { background: #242b33; }
  .grid th { color: #9aa5b1; } }
</style>"""


def heads_page(found: HeadsReport) -> str:
    """The whole report as HTML."""
    sections = [
        _kinds_section(found.scores),
        _grid_section(found.scores),
        _scores_section(found.scores),
        *_shown_sections(found),
        *composition_sections(found),
        *virtual_sections(found),
    ]
    if found.reasons:
        sections.append(Section("What is missing", "\n\n".join(found.reasons)))
    return page_html(f"Attention heads · {found.model}", _lead(found), sections)


def _lead(found: HeadsReport) -> str:
    scores = found.scores
    n_layers = len({row.layer for row in scores.rows})
    texts = [
        f"{len(scores.rows)} heads in {n_layers} layers, counted from 0.",
        "A head moves information between positions and transforms it on the way. The product (A "
        "⊗ B) acts on a sequence x, one row per position, as A x Bᵀ: A mixes positions, B "
        "transforms features. A head is A ⊗ W_OV. Its pattern A sets how much each position "
        "takes from each other position; its OV circuit W_OV = W_O W_V sets what is passed on; "
        "its QK circuit W_QK = W_Qᵀ W_K sets what the pattern looks for.",
    ]
    return "\n\n".join(texts)


def _kinds_section(scores: Heads) -> Section:
    rows = []
    for kind in KINDS:
        of_kind = scores.of_kind(kind.name)
        named = [
            f"{head_name((row.layer, row.head))} {_tip(row, kind.name)}"
            for row in of_kind or scores.strongest(kind.name, 1)
        ]
        more = len(named) - _N_STRONGEST
        chance = scores.expected.get(kind.name)
        rows.append(
            (
                kind.title,
                len(of_kind),
                None if chance is None else f"{chance:.1f}",
                ("" if of_kind else "none; highest: ")
                + ", ".join(named[:_N_STRONGEST])
                + (f" and {more} more" if more > 0 else ""),
            )
        )
    shown = "; ".join(f"{kind.title}: {kind.shown_by}, {kind.least:g} or more" for kind in KINDS)
    return Section(
        "Kinds of head",
        f"Patterns are scored on {scores.n_sequences} sequences of {scores.length} random tokens, "
        "each followed by the same tokens again: only their order predicts what comes next. "
        f"Copying is scored by the weights. {_null_note(scores)}\n\n{shown}.",
        table=Table(("kind", "heads", "by chance", "strongest"), tuple(rows)),
    )


def _null_note(scores: Heads) -> str:
    if not scores.n_random:
        return "No random heads were drawn, so no head is assigned a kind."
    return (
        f"Each head is compared with {scores.n_random} random heads that have the same singular "
        "values and the same place; the share of them that score lower is in brackets. A head "
        f"is of a kind if its score is high and at least {LEAST_PERCENTILE:g} % of them score "
        "lower. “By chance” is how many heads would be assigned the kind if all were random."
    )


def _grid_section(scores: Heads) -> Section:
    legend = "".join(
        f'<span><i style="background:{COLOURS[kind.name]}">{LETTERS[kind.name]}</i>'
        f"{html.escape(kind.title)}: {len(scores.of_kind(kind.name))}</span>"
        for kind in KINDS
    )
    rows: dict[int, list[HeadRow]] = {}
    for row in scores.rows:
        rows.setdefault(row.layer, []).append(row)
    n_heads = max((row.head + 1 for row in scores.rows), default=0)
    head = "".join(f"<th>H{number}</th>" for number in range(n_heads))
    body = "".join(
        f"<tr><th>L{layer}</th>{''.join(_grid_cell(row) for row in of_layer)}</tr>"
        for layer, of_layer in rows.items()
    )
    return Section(
        "All heads",
        "Each row is a layer, each column a head; letters and colours show its kinds. "
        "Point at a head for its scores, and the share of random heads that score lower.",
        trusted_html=f'{_GRID_STYLE}<div class="kinds">{legend}</div><div class="scroll">'
        f'<table class="grid"><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table>'
        "</div>",
    )


def _grid_cell(row: HeadRow) -> str:
    style = f' style="background:{background_of(row.kinds)}"' if row.kinds else ""
    text = letters_of(row.kinds)
    tip = "\n".join([_group_text(row), *(f"{k.title}: {_tip(row, k.name)}" for k in KINDS)])
    return f'<td{style} title="{html.escape(tip, quote=True)}">{text}</td>'


def _group_text(row: HeadRow) -> str:
    group = "" if row.kv_group is None else f", keys and values of group {row.kv_group}"
    return f"{head_name((row.layer, row.head))}{group}"


def _tip(row: HeadRow, kind: str) -> str:
    score, percentile = row.score(kind), row.percentile(kind)
    if score is None:
        return "–"
    beside = "" if percentile is None else f" ({percentile:.0f} %)"
    return f"{signed_low(score)}{beside}"


def _scores_section(scores: Heads) -> Section:
    return Section(
        "Scores",
        "The same grid once for each kind, by score. White is 0, red 1; blue is below 0, which "
        "only copying can be: such a head lowers the tokens it reads. A dot marks the heads of "
        "the kind.",
        scores_figure(scores),
    )


def scores_figure(scores: Heads) -> go.Figure:
    """One heatmap per kind, layers by heads."""
    n_layers = max((row.layer + 1 for row in scores.rows), default=0)
    n_heads = max((row.head + 1 for row in scores.rows), default=0)
    figure = make_subplots(
        cols=len(KINDS),
        shared_yaxes=True,
        horizontal_spacing=0.015,
        subplot_titles=[kind.title for kind in KINDS],
    )
    for column, kind in enumerate(KINDS, 1):
        cells = np.full((n_layers, n_heads), np.nan)
        marks = np.full((n_layers, n_heads), "", dtype=object)
        tips = np.full((n_layers, n_heads), "", dtype=object)
        for row in scores.rows:
            score = row.score(kind.name)
            cells[row.layer, row.head] = np.nan if score is None else score
            marks[row.layer, row.head] = "•" if kind.name in row.kinds else ""
            tips[row.layer, row.head] = _tip(row, kind.name)
        figure.add_trace(
            go.Heatmap(
                z=cells,
                text=marks,
                texttemplate="%{text}",
                customdata=tips,
                x=[f"H{head}" for head in range(n_heads)],
                y=[f"L{layer}" for layer in range(n_layers)],
                coloraxis="coloraxis",
                hoverongaps=False,
                hovertemplate="%{y} %{x}: %{customdata}<extra>" + kind.title + "</extra>",
            ),
            row=1,
            col=column,
        )
    figure.update_xaxes(showgrid=False, nticks=6, tickangle=0)
    figure.update_yaxes(autorange="reversed", showgrid=False, nticks=min(n_layers, 16))
    figure.update_layout(
        template=TEMPLATE,
        coloraxis={
            "colorscale": "RdBu_r",
            "cmin": -1,
            "cmax": 1,
            "colorbar": {"title": "score", "thickness": 12},
        },
        margin={"l": 10, "r": 10, "t": 40, "b": 30},
        height=150 + 14 * min(max(n_layers, 8), 60),
    )
    return figure


def _shown_sections(found: HeadsReport) -> Iterator[Section]:
    if not found.shown:
        return
    prompt, pairs = found.prompt, {(each.layer, each.head): each for each in found.pairs}
    rows = {(row.layer, row.head): row for row in found.scores.rows}
    text = (
        "These are the tokens that a head connects by its weights alone. OV: a source token, and "
        "the tokens whose logits the head raises where it attends to it. QK: a query token, and "
        "the tokens it attends to. The head reads each token's embedding and what the MLPs "
        "before it add to that, attention writing nothing; or the embedding alone, which heads "
        "after the first MLPs hardly read in many models. Scores are differences from the mean "
        "over all tokens on the right. “Random” is the highest score if the head's coordinates "
        "are turned at random between its two halves."
    )
    if prompt is not None:
        text += (
            " The pattern on the prompt is drawn as text and as a matrix: point at a token to "
            "see how much it takes from each token before it, or at a cell of the matrix, whose "
            "row is the attending token."
        )
    start = "" if prompt is None else PATTERN_STYLE + texts_html(prompt.texts)
    yield Section("Heads in detail", text, trusted_html=start)
    for number, head in enumerate(found.shown):
        parts = []
        if prompt is not None and head in prompt.patterns:
            row = len(prompt.texts) - 1 if found.virtual is None else found.virtual.position
            pattern = prompt.patterns[head]
            parts.append(pattern_html(pattern, row, f"Pattern of {head_name(head)}"))
        if head in pairs:
            parts.append(pairs_html(found, pairs[head]))
        if number == len(found.shown) - 1 and prompt is not None:
            parts.append(PATTERN_SCRIPT)
        row_of = rows.get(head)
        yield Section(
            f"{head_name(head)} · {_kinds_text(row_of)}",
            "" if row_of is None else _scores_text(row_of),
            trusted_html="\n".join(parts),
        )


def _kinds_text(row: HeadRow | None) -> str:
    titles = {kind.name: kind.title for kind in KINDS}
    named = [] if row is None else [titles[name] for name in row.kinds]
    return ", ".join(named) or "no kind found"


def _scores_text(row: HeadRow) -> str:
    return "; ".join(f"{kind.title} {_tip(row, kind.name)}" for kind in KINDS) + "."
