"""A contrast as one page that needs no network: what each figure shows, and what it says here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from projector.figures.contrast.effects import effects_figure, effects_of, why_no_effects
from projector.figures.contrast.growth import growth_figure
from projector.figures.contrast.panels import panels
from projector.figures.contrast.series import Facts, Found, ModelRows, facts_of, read_models
from projector.figures.contrast.sharing import sharing_figure, sharing_of
from projector.figures.contrast.untangling import untangling_figure, untangling_of
from projector.figures.contrast.words import (
    HOW_EFFECTS,
    HOW_GROWTH,
    HOW_PANELS,
    HOW_SHARING,
    HOW_UNTANGLING,
    cosine_words,
    effects_words,
    growth_words,
    untangling_words,
    variance_words,
)
from projector.figures.page import Section, Table, page_html
from projector.residual.flow.words import number

_COLUMNS = (
    ("cosine", ".3f"),
    ("cosine_low", ".3f"),
    ("cosine_high", ".3f"),
    ("cosine_split_half", ".3f"),
    ("cosine_permuted", ".3f"),
    ("variance_mean_positive", ".3g"),
    ("variance_mean_negative", ".3g"),
    ("variance_max_positive", ".3g"),
    ("variance_max_negative", ".3g"),
    ("growth_pre", ".3f"),
    ("growth_update", ".3f"),
    ("growth_covariance", ".3f"),
    ("probe_accuracy", ".3f"),
    ("probe_permuted", ".3f"),
)


def contrast_page(found: Found | Facts) -> str:
    """The whole report as HTML, of a result or of what ``report.json`` holds.

    Raises:
        UserError: if this is no report of two sets.
    """
    facts = facts_of(found)
    models = read_models(facts)
    return page_html(title(facts), lead(facts), list(_sections(facts, models)))


def title(facts: Facts) -> str:
    """What is shown, in a few words."""
    positive, negative = names_of(facts)
    return f"{positive[:1].upper()}{positive[1:]} against {negative}"


def names_of(facts: Facts) -> tuple[str, str]:
    """What the two sets are called, as text."""
    return str(facts.get("positive_name") or "positive"), str(
        facts.get("negative_name") or "negative"
    )


def lead(facts: Facts) -> str:
    """How many prompts of what were read, where, and what is to be known of them."""
    positive, negative = names_of(facts)
    models = ", ".join(each.model for each in read_models(facts))
    where = "the last token" if facts.get("at") == "last" else "the mean of its tokens"
    text = (
        f"{facts.get('n_positive')} prompts of {positive} and {facts.get('n_negative')} of "
        f"{negative}, each read at {where} in the residual stream of {models}."
    )
    notes = [str(note) for note in facts.get("notes") or ()]
    return "\n\n".join([text, *(f"{note[:1].upper()}{note[1:]}" for note in notes)])


def _sections(facts: Facts, models: Sequence[ModelRows]) -> Iterator[Section]:
    names = names_of(facts)
    said = [(m, f"{cosine_words(m)} {variance_words(m, names)}") for m in models]
    yield Section("How the sets part", _text(said, HOW_PANELS), panels(facts))
    said = [(model, growth_words(facts, model)) for model in models]
    yield Section("Why variance grows", _text(said, HOW_GROWTH), growth_figure(facts))
    for model in models:
        found, figure = sharing_of(facts, model.model), sharing_figure(facts, model.model)
        if found is None:
            continue
        sentence = str(found.get("sentence") or found.get("reason") or "")
        notes = [str(note) for note in found.get("notes") or ()]
        text = "\n\n".join([sentence, *notes, HOW_SHARING if figure is not None else ""])
        yield Section(_title("Whether layers share directions", model, models), text, figure)
    for model in models:
        rows, drawn = untangling_of(facts, model.model), untangling_figure(facts, model.model)
        if rows is not None:
            text = f"{untangling_words(rows)}\n\n{HOW_UNTANGLING}"
            yield Section(_title("How the samples lie", model, models), text, drawn)
    for model in models:
        drawn = effects_figure(facts, model.model)
        text = f"{effects_words(effects_of(facts, model.model))}\n\n{HOW_EFFECTS}"
        if drawn is None:
            text = why_no_effects(facts, model.model)
        yield Section(_title("What the direction does", model, models), text, drawn)
    for model in models:
        yield Section(_title("Numbers", model, models), table=rows_table(model))


def _title(text: str, model: ModelRows, models: Sequence[ModelRows]) -> str:
    return text if len(models) == 1 else f"{text}: {model.model}"


def _text(said: Sequence[tuple[ModelRows, str]], how: str) -> str:
    """What is found of each model, then how to read the figure."""
    parts = [text if len(said) == 1 else f"{model.model}: {text}" for model, text in said]
    return "\n\n".join([*parts, how])


def rows_table(model: ModelRows) -> Table:
    """The rows of a model as a table."""
    titles = [name.replace("_", " ") for name, _ in _COLUMNS]
    columns = [[number(v, form) for v in model.column(name)] for name, form in _COLUMNS]
    rows = [
        (f"{place.layer}", place.stream, *(column[k] for column in columns))
        for k, place in enumerate(model.places)
    ]
    return Table(("layer", "stream", *titles), tuple(rows))
