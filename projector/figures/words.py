"""Texts of a projection's figures: titles, and how faithful a map is."""

from __future__ import annotations

import html
from typing import Any

from projector.figures.axes import N_SHOWN
from projector.naming.labels import neuron_labels
from projector.naming.names import Names
from projector.projection.facts import MapFigures
from projector.projection.faithfulness import in_words, told
from projector.projection.projection import Projection
from projector.projection.verdict import verdict

TEMPLATE = "plotly_white"


def trust_text(figures: MapFigures, objective: str = "stress") -> str:
    """Describe how faithful a map is.

    Args:
        objective: objective of the map's layout.
    """
    known = figures.neighbour_overlap is not None
    parts = [verdict(figures, objective)] if known else []
    parts += [in_words(each.sentence, figures) for each in told()]
    parts = [part for part in parts if part]
    if figures.sample is not None:
        parts.append(figures.sample.words())
    if not parts:
        reason = next(iter(figures.reasons.values()), "nothing was measured")
        parts.append(f"how far to trust it is unknown: {reason}")
    return " · ".join(parts)


def map_title(projection: Projection, layer: int, site: str, layout: str | None = None) -> str:
    """A map's title: its content, its provenance, and how faithful it is."""
    figures = projection.figures(layer, site, layout)
    settings = projection.layout(layout).settings
    dim, objective = settings.dim, settings.objective
    n_dead = len(figures.dead_neurons) + len(figures.nonfinite_neurons)
    shown = f"{figures.n_neurons - n_dead:,} neurons"
    if n_dead:
        shown += f" ({n_dead:,} more are dead or broken and have no position)"
    if dim > N_SHOWN:
        shown += f", the three widest axes of {dim}"
    return (
        f"<b>Layer {layer} {html.escape(site)}</b> · {shown} · {origin(projection)}"
        f"<br><sup>{html.escape(trust_text(figures, objective))}</sup>"
    )


def names_of(
    projection: Projection, layer: int, site: str, names: Names | None = None
) -> list[str]:
    """The name of each neuron of a map for hover texts, as HTML: the user's name, or its label; ""
    if it has neither.
    """
    n_neurons = projection.figures(layer, site).n_neurons
    found = [""] * n_neurons
    if projection.has_examples:
        labels = neuron_labels(projection.examples(layer, site), projection.pieces)
        found = ["" if label is None else label.text for label in labels]
    if names is not None:
        found = [names.of_neuron(layer, site, j) or text for j, text in enumerate(found)]
    return [html.escape(text, quote=False) for text in found]


def origin(projection: Projection) -> str:
    """The provenance of a projection, as HTML for a title."""
    facts = projection.facts
    text = facts.model.id
    if facts.corpus is not None:
        text += f" over {facts.corpus.n_tokens:,} tokens of {facts.corpus.source}"
    return html.escape(text)


def heading(text: str, **more: Any) -> dict[str, Any]:
    """Create the title of a figure from HTML."""
    return {"text": text, "x": 0.01, "font": {"size": 15}, **more}
