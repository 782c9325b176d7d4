"""The parts of a report of two sets, the same on its page and on the dashboard."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import plotly.graph_objects as go

from projector.figures.contrast.effects import (
    effects_figure,
    effects_of,
    effects_words,
    how_effects,
    why_no_effects,
)
from projector.figures.contrast.growth import growth_figure
from projector.figures.contrast.panels import panels
from projector.figures.contrast.series import (
    Facts,
    Found,
    ModelRows,
    facts_of,
    plain_names,
    read_models,
)
from projector.figures.contrast.sharing import sharing_figure, sharing_of
from projector.figures.contrast.untangling import untangling_figure, untangling_of
from projector.figures.contrast.words import (
    HOW_GROWTH,
    HOW_PANELS,
    HOW_SHARING,
    HOW_UNTANGLING,
    cosine_words,
    growth_words,
    untangling_words,
    variance_words,
)

# What a mark's place along the axis tells: how deep in the stream, or which layer.
Axis = Literal["depth", "layer"]


@dataclass(frozen=True)
class Part:
    """A figure with its explanations, for all models or for one of them.

    Attributes:
        name: ``parting``, ``growth``, ``sharing``, ``samples`` or ``direction``. Parts with the
            same name follow one another, one per model.
        title: the heading of all parts with this name.
        model: its model; None for all models of the report.
        figure: the figure; None if there is nothing to draw, with the reason in ``found``.
        found: the results as plain text; an empty line separates paragraphs.
        how: how to read the figure; empty if there is none.
        axis: meaning of a mark's x; None if it isn't a layer.
    """

    name: str
    title: str
    model: str | None
    figure: go.Figure | None
    found: str
    how: str
    axis: Axis | None


def sections(found: Found | Facts, *, layer: int | None = None) -> tuple[Part, ...]:
    """All parts of a report, in order.

    Args:
        found: a result, or the content of ``report.json``.
        layer: the layer to mark in every figure.

    Raises:
        UserError: if this is not a report of two sets.
    """
    facts = facts_of(found)
    models = read_models(facts)
    names = plain_names(facts)
    parts = [
        Part(
            "parting",
            "How the sets separate",
            None,
            panels(facts, layer=layer),
            _of_each([(m, f"{cosine_words(m)} {variance_words(m, names)}") for m in models]),
            HOW_PANELS,
            "depth",
        ),
        Part(
            "growth",
            "Why variance grows",
            None,
            growth_figure(facts, layer=layer),
            _of_each([(m, growth_words(facts, m)) for m in models]),
            HOW_GROWTH,
            "layer",
        ),
    ]
    for of_model in (_sharing, _samples, _direction):
        parts += [of_model(facts, model, layer) for model in models]
    return tuple(parts)


def _sharing(facts: Facts, model: ModelRows, layer: int | None) -> Part:
    figure = sharing_figure(facts, model.model, layer=layer)
    found = sharing_of(facts, model.model) or {}
    if figure is None:
        reason = str(found.get("reason") or "").rstrip(".")
        text = f"Successive layers were not compared{f': {reason}' if reason else ''}."
    else:
        text = str(found.get("sentence") or "")
    notes = [str(note) for note in found.get("notes") or ()]
    return _part("sharing", "Shared directions", model, figure, [text, *notes], HOW_SHARING)


def _samples(facts: Facts, model: ModelRows, layer: int | None) -> Part:
    figure = untangling_figure(facts, model.model, layer=layer)
    text = untangling_words(untangling_of(facts, model.model))
    text = text or "The samples’ similarity and probes were not measured."
    return _part("samples", "Samples", model, figure, [text], HOW_UNTANGLING, "depth")


def _direction(facts: Facts, model: ModelRows, layer: int | None) -> Part:
    figure = effects_figure(facts, model.model, layer=layer)
    effects = effects_of(facts, model.model)
    text = why_no_effects(facts, model.model)
    if figure is not None:
        text = effects_words(effects, plain_names(facts))
    return _part("direction", "The direction", model, figure, [text], how_effects(effects), None)


def _part(
    name: str,
    title: str,
    model: ModelRows,
    figure: go.Figure | None,
    found: Sequence[str],
    how: str,
    axis: Axis | None = "layer",
) -> Part:
    text = "\n\n".join(each for each in found if each)
    return Part(name, title, model.model, figure, text, how if figure is not None else "", axis)


def _of_each(said: Sequence[tuple[ModelRows, str]]) -> str:
    """What is found of each model, which is named where there are several."""
    return "\n\n".join(_lines(said))


def _lines(said: Sequence[tuple[ModelRows, str]]) -> Iterator[str]:
    for model, text in said:
        yield text.strip() if len(said) == 1 else f"{model.model}: {text.strip()}"
