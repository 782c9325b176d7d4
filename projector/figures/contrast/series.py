"""Read a report of two sets for drawing: a model's rows in the order of the stream."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from projector.errors import UserError

Facts = Mapping[str, Any]
# Cosines above it all need a fourth decimal.
_CLOSE = 0.95
_STEPS = {"resid_pre": 0.0, "resid_mid": 0.5, "resid_post": 1.0}


class Found(Protocol):
    """A result with the content of its ``report.json``."""

    def as_dict(self) -> dict[str, Any]:
        """The content."""


def facts_of(found: Found | Facts) -> Facts:
    """The content of a report, from a result or from JSON.

    Raises:
        UserError: if it isn't a report of two sets.
    """
    facts = found if isinstance(found, Mapping) else found.as_dict()
    rows = facts.get("rows")
    if not isinstance(rows, Sequence) or not rows or not all(map(_is_row, rows)):
        raise UserError(
            "this isn't a report of two sets of prompts: rows of model, layer and stream are "
            "missing"
        )
    return facts


def _is_row(row: Any) -> bool:
    return (
        isinstance(row, Mapping)
        and isinstance(row.get("model"), str)
        and isinstance(row.get("layer"), int)
        and row.get("stream") in _STEPS
        and "cosine" in row
    )


@dataclass(frozen=True)
class Place:
    """A point of the stream.

    Attributes:
        layer: index of the layer, from 0.
        stream: ``resid_pre``, ``resid_mid`` or ``resid_post``.
    """

    layer: int
    stream: str

    @property
    def depth(self) -> float:
        """Its coordinate in figures: block L reaches from L to L + 1."""
        return self.layer + _STEPS[self.stream]

    @property
    def is_embedding(self) -> bool:
        """Whether no block has written to the stream yet."""
        return self.depth == 0

    @property
    def words(self) -> str:
        """In words."""
        if self.is_embedding:
            return "embedding"
        if self.stream == "resid_pre":
            return f"after layer {self.layer - 1}"
        return f"after layer {self.layer}{'’s attention' if self.stream == 'resid_mid' else ''}"


@dataclass(frozen=True)
class ModelRows:
    """One model's rows in ascending depth, each point of the stream once.

    Attributes:
        model: name of the model.
        places: point of each row.
        rows: rows of the report.
    """

    model: str
    places: tuple[Place, ...]
    rows: tuple[Facts, ...]

    def column(self, name: str) -> list[float | None]:
        """A figure at each point; None if it is unknown."""
        return [number_of(row, name) for row in self.rows]

    @property
    def n_layers(self) -> int:
        """The number of the model's layers in the report."""
        return 1 + max(place.layer for place in self.places)


def number_of(row: Facts, name: str) -> float | None:
    """A figure of a row; None if it is null, missing, or not finite."""
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def read_models(facts: Facts) -> tuple[ModelRows, ...]:
    """The rows of each model, in the order of the report."""
    names = dict.fromkeys(row["model"] for row in facts["rows"])
    each = (as_model(name, [r for r in facts["rows"] if r["model"] == name]) for name in names)
    return tuple(model for model in each if model is not None)


def as_model(model: str, rows: Iterable[Facts]) -> ModelRows | None:
    """Sort rows of layer and stream in the order of the stream; None if there are none."""
    by_depth: dict[float, tuple[Place, Facts]] = {}
    for row in rows:
        if not isinstance(row.get("layer"), int) or row.get("stream") not in _STEPS:
            continue
        place = Place(row["layer"], row["stream"])
        # A layer's resid_pre is the resid_post of the layer before: it is drawn once.
        if place.depth not in by_depth or place.stream == "resid_post":
            by_depth[place.depth] = (place, row)
    ordered = [by_depth[depth] for depth in sorted(by_depth)]
    if not ordered:
        return None
    return ModelRows(model, tuple(p for p, _ in ordered), tuple(r for _, r in ordered))


def entries_of(facts: Facts, part: str, model: str) -> list[Facts]:
    """The entries of a part of the report, such as ``growth``, for a model."""
    found = facts.get(part)
    entries = found if isinstance(found, list | tuple) else []
    return [each for each in entries if isinstance(each, Mapping) and each.get("model") == model]


def plain_names(facts: Facts) -> tuple[str, str]:
    """The names of the two sets, as text."""
    positive = facts.get("positive_name") or "positive"
    return str(positive), str(facts.get("negative_name") or "negative")


def set_names(facts: Facts) -> tuple[str, str]:
    """The names of the two sets, as HTML for Plotly."""
    positive, negative = plain_names(facts)
    return shown(positive), shown(negative)


def shown(text: str, most: int = 40) -> str:
    """A text for a figure: shortened and escaped."""
    cut = text if len(text) <= most else f"{text[: most - 1]}…"
    return html.escape(cut, quote=False)


def known(values: Iterable[float | None]) -> list[float]:
    """The values that are not None."""
    return [value for value in values if value is not None]


def cosine_form(models: Sequence[ModelRows]) -> str:
    """The format of cosines of means, with more decimals if all are close to 1."""
    columns = ("cosine", "cosine_split_half", "cosine_permuted")
    values = [v for model in models for name in columns for v in known(model.column(name))]
    return ".4f" if values and min(values) > _CLOSE else ".3f"
