"""A contrast as one offline page, with explanations of each figure and its results."""

from __future__ import annotations

from projector.figures.contrast.sections import sections
from projector.figures.contrast.series import (
    Facts,
    Found,
    ModelRows,
    cosine_form,
    facts_of,
    plain_names,
    read_models,
)
from projector.figures.page import Section, Table, page_html
from projector.residual.flow.words import number

_COSINES = ("cosine", "cosine_low", "cosine_high", "cosine_split_half", "cosine_permuted")
_COLUMNS = (
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
    """The whole report as HTML, from a result or the content of ``report.json``.

    Raises:
        UserError: if this is not a report of two sets.
    """
    facts = facts_of(found)
    models = read_models(facts)
    shown = [
        Section(
            _title(part.title, part.model, len(models)), f"{part.found}\n\n{part.how}", part.figure
        )
        for part in sections(facts)
    ]
    shown += [
        Section(_title("Numbers", model.model, len(models)), table=rows_table(model))
        for model in models
    ]
    return page_html(title(facts), lead(facts), shown)


def title(facts: Facts) -> str:
    """The title of the page."""
    positive, negative = plain_names(facts)
    return f"{positive[:1].upper()}{positive[1:]} against {negative}"


def lead(facts: Facts) -> str:
    """Describe the prompts, the tokens that were read, and remarks about them."""
    positive, negative = plain_names(facts)
    models = ", ".join(each.model for each in read_models(facts))
    where = "the last token" if facts.get("at") == "last" else "the mean of its tokens"
    text = (
        f"{facts.get('n_positive')} prompts of {positive} and {facts.get('n_negative')} of "
        f"{negative}, each read at {where} in the residual stream of {models}."
    )
    notes = [str(note) for note in facts.get("notes") or ()]
    return "\n\n".join([text, *(f"{note[:1].upper()}{note[1:]}" for note in notes)])


def _title(text: str, model: str | None, n_models: int) -> str:
    return text if model is None or n_models == 1 else f"{text}: {model}"


def rows_table(model: ModelRows) -> Table:
    """The rows of a model as a table."""
    chosen = [*((name, cosine_form([model])) for name in _COSINES), *_COLUMNS]
    titles = [name.replace("_", " ") for name, _ in chosen]
    columns = [[number(v, form) for v in model.column(name)] for name, form in chosen]
    rows = [
        (f"{place.layer}", place.stream, *(column[k] for column in columns))
        for k, place in enumerate(model.places)
    ]
    return Table(("layer", "stream", *titles), tuple(rows))
