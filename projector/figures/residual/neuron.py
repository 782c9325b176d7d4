"""The inputs and outputs of a neuron, as a page and in sentences."""

from __future__ import annotations

import html

import plotly.graph_objects as go

from projector.corpus.pieces import readable
from projector.figures.page import Section, Table, page_html
from projector.figures.words import TEMPLATE
from projector.residual.flow.words import number
from projector.residual.neuron import FavouredTokens, NeuronReaders, NeuronWeights
from projector.residual.neuron_heads import HeadReaders

_RAISES, _LOWERS, _BAND = "#d6604d", "#4393c3", "#cbd2d9"
# What each part's values are, and what it is called.
_TITLES = {
    "input": "What it reads",
    "gate": "What its gate reads",
    "up": "What its up-projection reads",
    "output": "What it writes",
}


def neuron_page(found: NeuronWeights, model: str) -> str:
    """The whole report as HTML."""
    name = f"L{found.layer} N{found.neuron}"
    sections = []
    for tokens in found.reads:
        text = f"{reads_words(tokens)} {control_words(tokens, found.n_shuffles)}"
        sections.append(
            Section(_TITLES[tokens.part], text, tokens_figure(tokens), _tokens_table(tokens))
        )
    if found.writes is not None:
        text = f"{writes_words()} {control_words(found.writes, found.n_shuffles)}"
        sections.append(
            Section(
                _TITLES["output"], text, tokens_figure(found.writes), _tokens_table(found.writes)
            )
        )
    else:
        sections.append(Section(_TITLES["output"], f"This is not known: {found.writes_reason}"))
    if found.readers is not None:
        readers = found.readers
        sections.append(
            Section(
                "Who reads it",
                readers_words(readers, found.n_shuffles),
                readers_figure(readers),
                _readers_table(readers),
            )
        )
    if found.heads is not None:
        heads = found.heads
        rows = tuple(
            (f"L{each.layer} H{each.head}", each.part, number(each.strength))
            for each in heads.strongest
        )
        sections.append(
            Section(
                "Heads that read it",
                heads_words(heads, found.n_shuffles),
                table=Table(("head", "part", "strength"), rows),
            )
        )
    lead = [
        f"Neuron {found.neuron} of layer {found.layer}, one of {found.n_neurons:,}, by its weights "
        f"alone: no text was run. {gated_words(found)}",
        *found.notes,
    ]
    return page_html(f"{name} of {model}", "\n\n".join(lead), sections)


def gated_words(found: NeuronWeights) -> str:
    """Explain how a neuron's activation depends on its inputs."""
    if not found.gated:
        return "Its activation is a function of one input."
    return (
        "It is gated: its activation is a function of the gate's input times the up-projection's. "
        "So the gate decides when it fires, and the up-projection's input decides the sign."
    )


def reads_words(tokens: FavouredTokens) -> str:
    """Explain the values of an input."""
    return (
        "Cosine of each token's embedding and the direction that the input reads, with the "
        "weight of the norm before the MLP folded in."
    )


def writes_words() -> str:
    """Explain the values of the output."""
    return (
        "What one unit of its activation adds to each token's logit, minus the mean over all "
        "tokens, if all later layers leave it unchanged; the final norm's scale is taken as 1."
    )


def control_words(tokens: FavouredTokens, n_shuffles: int) -> str:
    """Compare the values with those of shuffled weights."""
    return (
        f"With the same weights in a random order, the largest of any token is "
        f"±{tokens.shuffled_mean:.2f} on average, and ±{tokens.shuffled_most:.2f} at most in "
        f"{n_shuffles} orders: {_beyond(tokens.n_beyond, tokens.n_tokens, 'token', n_shuffles)}."
    )


def readers_words(readers: NeuronReaders, n_shuffles: int) -> str:
    """Describe the later neurons that read the output, compared with chance."""
    return (
        "Cosine of the direction that the neuron writes and the direction that each input of each "
        "later neuron reads, norms folded in. With the written direction in a random order, the "
        f"largest of any input is ±{readers.shuffled_mean:.2f} on average, and "
        f"±{readers.shuffled_most:.2f} at most in {n_shuffles} orders: "
        f"{_beyond(readers.n_beyond, readers.n_inputs, 'input', n_shuffles)}."
    )


def heads_words(heads: HeadReaders, n_shuffles: int) -> str:
    """Describe the later heads that read the output, compared with chance."""
    left_out = "; ".join(f"layer {layer}: {reason}" for layer, reason in heads.reasons.items())
    return (
        "How strongly each later head's queries, keys and values read the direction that the "
        "neuron writes: ‖W d‖ / ‖W‖ · √H, 1 for a random direction. With the written direction in "
        f"a random order, the largest is {heads.shuffled_mean:.2f} on average, and "
        f"{heads.shuffled_most:.2f} at most in {n_shuffles} orders: "
        f"{_beyond(heads.n_beyond, heads.n_parts, 'part', n_shuffles)}."
        + (f" Left out: {left_out}." if left_out else "")
    )


def _beyond(n: int, n_all: int, noun: str, n_shuffles: int) -> str:
    if not n:
        return f"none of the {n_all:,} {noun}s exceeds that, so none stands out"
    is_one = n == 1
    return (
        f"{n:,} of the {n_all:,} {noun}s {'exceeds' if is_one else 'exceed'} that, which by "
        f"chance happens to one neuron in {n_shuffles + 1}"
    )


def _bars(names: list[str], values: list[float], bound: float, title: str) -> go.Figure:
    """Bars, the first at the top, over the range that shuffled weights reach."""
    figure = go.Figure(
        go.Bar(
            x=values,
            y=list(range(len(values))),
            orientation="h",
            marker={"color": [_RAISES if value > 0 else _LOWERS for value in values]},
            customdata=names,
            hovertemplate="%{customdata}: %{x:.3f}<extra></extra>",
        )
    )
    figure.add_vrect(x0=-bound, x1=bound, fillcolor=_BAND, opacity=0.5, line_width=0, layer="below")
    figure.update_layout(
        template=TEMPLATE,
        height=90 + 20 * len(values),
        margin={"l": 10, "r": 10, "t": 10, "b": 10},
        xaxis={"title": f"{title}; grey: range of shuffled weights"},
        yaxis={
            "tickvals": list(range(len(names))),
            "ticktext": names,
            "autorange": "reversed",
            "automargin": True,
        },
        showlegend=False,
    )
    return figure


def tokens_figure(tokens: FavouredTokens) -> go.Figure:
    """The tokens that are favoured most, and below them the tokens that are favoured least."""
    shown = [*tokens.most, *reversed(tokens.least)]
    names = [html.escape(readable(each.text), quote=False) for each in shown]
    title = "logits for one unit of activation" if tokens.part == "output" else "cosine"
    return _bars(names, [each.value for each in shown], tokens.shuffled_most, title)


def readers_figure(readers: NeuronReaders) -> go.Figure:
    """The later inputs that read the output."""
    shown = readers.strongest
    names = [f"L{each.layer} N{each.neuron} {each.part}" for each in shown]
    return _bars(names, [each.cosine for each in shown], readers.shuffled_most, "cosine")


def _tokens_table(tokens: FavouredTokens) -> Table:
    pairs = zip(tokens.most, tokens.least, strict=True)
    rows = tuple(
        (readable(high.text), number(high.value), readable(low.text), number(low.value))
        for high, low in pairs
    )
    return Table(("most", "", "least", ""), rows)


def _readers_table(readers: NeuronReaders) -> Table:
    rows = tuple(
        (f"L{each.layer} N{each.neuron}", each.part, number(each.cosine))
        for each in readers.strongest
    )
    return Table(("neuron", "input", "cosine"), rows)
