"""The results of contrasting two sets of prompts in one or several models, and their report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from projector.residual.contrast.growth import Growth
from projector.residual.contrast.prompts import PromptSets
from projector.residual.contrast.records import Interval, Point, PointMeasures
from projector.residual.contrast.sharing.records import Sharing
from projector.residual.contrast.states import States
from projector.residual.contrast.untangling.records import Untangling
from projector.residual.directions.artifact import Directions
from projector.residual.directions.records import Effect

__all__ = ["Averaged", "Contrast", "ModelContrast"]

# The mean of both sets, the first and the second.
Averaged = tuple[Growth, Growth, Growth]
_AT_EMBEDDING = "no block has written to the stream yet"
_EMPTY = "there is none"
_EMBEDDING = Point(0, "resid_pre")
# Columns of a row, and what they are of the measures of a place; each has a low and a high end.
_NULLS = {
    "cosine_split_half": "split_half",
    "cosine_across_halves": "across_halves",
    "cosine_permuted": "permuted",
}
_VARIANCES = tuple(
    f"variance_{what}_{side}" for what in ("mean", "max") for side in ("positive", "negative")
)
_SIZES = ("mean_norm_positive", "mean_norm_negative", "difference_norm")
_SHARES = ("pre", "update", "covariance")
_PROBES = ("probe_accuracy", "probe_permuted", "probe_permuted_high")
_SOURCES = {
    "cosine": "cosine",
    **_NULLS,
    **{name: name for name in (*_VARIANCES, *_SIZES)},
    "difference_norm_permuted": "difference_permuted",
}


@dataclass(frozen=True, eq=False)
class ModelContrast:
    """The results for one model.

    Attributes:
        name: the model's identifier, unique within a contrast.
        weights_sha256: hash of its weights.
        states: one vector per prompt at every point of the stream.
        measures: measures at each of ``states.points``.
        block_growth: growth over each layer's whole block: the mean of both sets, the first set and
            the second set.
        attention_growth: the same for the step to ``resid_mid``, for the layers that have one.
        sharing: whether successive layers write in the same directions; None with ``reasons``.
        untangling: untangling at each of ``states.points``.
        directions: the directions between the sets; None with ``reasons``.
        effects: effects of the directions, by layer.
        reasons: part → reason why it is missing.
    """

    name: str
    weights_sha256: str
    states: States
    measures: Mapping[Point, PointMeasures]
    block_growth: Mapping[int, Averaged]
    attention_growth: Mapping[int, Averaged]
    sharing: Sharing | None
    untangling: Mapping[Point, Untangling]
    directions: Directions | None
    effects: tuple[Effect, ...]
    reasons: Mapping[str, str] = field(default_factory=dict)

    def growth_before(self, point: Point) -> Growth | None:
        """The growth over the step before a point; None at the embedding."""
        if point.stream == "resid_mid":
            return self.attention_growth[point.layer][0]
        layer = point.layer - (point.stream == "resid_pre")
        return None if layer < 0 else self.block_growth[layer][0]

    def row(self, point: Point) -> dict[str, Any]:
        """The row of ``report.json`` for a point; its ``reasons`` explain null figures."""
        found, growth = self.measures[point], self.growth_before(point)
        untangling = self.untangling[point]
        nulls = {name: getattr(found, source) for name, source in _NULLS.items()}
        variances = {name: getattr(found, name) for name in _VARIANCES}
        figures = {
            "cosine": _value(found.cosine),
            **_ends("cosine", found.cosine),
            "cosine_split_half": _value(found.split_half),
            "cosine_permuted": _value(found.permuted),
            **{name: _value(each) for name, each in variances.items()},
            **{f"growth_{part}": getattr(growth, part, None) for part in _SHARES},
            "probe_accuracy": untangling.probe_accuracy,
            "probe_permuted": untangling.probe_permuted,
            "cosine_across_halves": _value(found.across_halves),
            **{k: v for name, each in nulls.items() for k, v in _ends(name, each).items()},
            **{k: v for name, each in variances.items() for k, v in _ends(name, each).items()},
            **{name: getattr(found, name) for name in _SIZES},
            "difference_norm_permuted": _value(found.difference_permuted),
            "probe_permuted_high": untangling.probe_permuted_high,
            "probe_embedding": self._embedding_accuracy(),
        }
        given = self._given_reasons(point, growth)
        reasons = {
            name: given.get(name) or given.get(_stem(name)) or _EMPTY
            for name, value in figures.items()
            if value is None
        }
        place = {"model": self.name, "layer": point.layer, "stream": point.stream}
        return {**place, **figures, "reasons": reasons}

    def _given_reasons(self, point: Point, growth: Growth | None) -> dict[str, str]:
        """Why figures of a row are missing, by column; an end of an interval has its figure's."""
        measured, untangled = self.measures[point].reasons, self.untangling[point].reasons
        found = {name: measured[source] for name, source in _SOURCES.items() if source in measured}
        for part in _SHARES:
            if growth is None:
                found[f"growth_{part}"] = _AT_EMBEDDING
            elif part in growth.reasons:
                found[f"growth_{part}"] = growth.reasons[part]
        found |= {name: untangled[name] for name in _PROBES if name in untangled}
        embedding = self.untangling.get(_EMBEDDING)
        if embedding is None:
            found["probe_embedding"] = self.states.missing.get(_EMBEDDING.stream, _EMPTY)
        elif "probe_accuracy" in embedding.reasons:
            found["probe_embedding"] = embedding.reasons["probe_accuracy"]
        return found

    def growth_entries(self) -> list[dict[str, Any]]:
        """One entry per block: the mean of both sets, and each set separately."""
        found = []
        for layer, (mean, positive, negative) in self.block_growth.items():
            sets = {"positive": positive.as_dict(), "negative": negative.as_dict()}
            found.append({"model": self.name, "layer": layer, **mean.as_dict(), **sets})
        return found

    def untangling_entries(self) -> list[dict[str, Any]]:
        """One entry per point, with the accuracy of a probe of the embedding alone."""
        baseline = {"embedding_accuracy": self._embedding_accuracy()}
        return [
            {"model": self.name, **asdict(point), **found.as_dict(), **baseline}
            for point, found in self.untangling.items()
        ]

    def direction_entries(self) -> list[dict[str, Any]]:
        """One entry per effect; a single entry with the reason if there are none."""
        if self.effects:
            return [{"model": self.name, **each.as_dict()} for each in self.effects]
        return [{"model": self.name, "reason": self.reasons.get("directions", _EMPTY)}]

    def sharing_entry(self) -> dict[str, Any]:
        """The entry for :class:`Sharing`, or the reason why it is missing."""
        if self.sharing is None:
            return {"model": self.name, "reason": self.reasons["sharing"]}
        return {"model": self.name, **self.sharing.as_dict()}

    def why_missing(self) -> dict[str, dict[str, str]]:
        """The reasons why figures are null, by point, and why points and parts are missing."""
        found = {name: {"rows": why} for name, why in self.states.missing.items()}
        if self.reasons:
            found["all"] = dict(self.reasons)
        for point in self.measures:
            if reasons := self.row(point)["reasons"]:
                found[f"layer {point.layer} {point.stream}"] = reasons
        return found

    def _embedding_accuracy(self) -> float | None:
        found = self.untangling.get(_EMBEDDING)
        return None if found is None else found.probe_accuracy


@dataclass(frozen=True, eq=False)
class Contrast:
    """The results of contrasting two sets of prompts in one or several models.

    Attributes:
        sets: the prompts.
        at: "last" or "mean".
        seed: seed of every random draw.
        n_draws: number of draws of each null.
        models: the results for each model.
        notes: remarks about the prompts and tokens, one sentence each.
    """

    sets: PromptSets
    at: str
    seed: int
    n_draws: int
    models: tuple[ModelContrast, ...]
    notes: tuple[str, ...]

    @property
    def directions(self) -> tuple[Directions, ...]:
        """The directions of each model that has them."""
        return tuple(each.directions for each in self.models if each.directions is not None)

    def as_dict(self) -> dict[str, Any]:
        """The content of ``report.json``."""
        each = self.models
        return {
            "models": [model.name for model in each],
            "weights_sha256": {model.name: model.weights_sha256 for model in each},
            "pair": self.sets.name,
            "sets_sha256": self.sets.sha256,
            "positive_name": self.sets.positive_name,
            "negative_name": self.sets.negative_name,
            "n_positive": len(self.sets.positive),
            "n_negative": len(self.sets.negative),
            "at": self.at,
            "notes": list(self.notes),
            "seed": self.seed,
            "n_draws": self.n_draws,
            "outliers": [
                {"model": model.name, **token.as_dict()}
                for model in each
                for token in model.states.outliers
            ],
            "additivity_error": {model.name: model.states.additivity_error for model in each},
            "rows": [model.row(point) for model in each for point in model.states.points],
            "growth": [entry for model in each for entry in model.growth_entries()],
            "sharing": [model.sharing_entry() for model in each],
            "untangling": [entry for model in each for entry in model.untangling_entries()],
            "directions": [entry for model in each for entry in model.direction_entries()],
            "reasons": {model.name: model.why_missing() for model in each},
        }


def _value(found: Interval | None) -> float | None:
    return None if found is None else found.value


def _ends(name: str, found: Interval | None) -> dict[str, float | None]:
    return {
        f"{name}_low": None if found is None else found.low,
        f"{name}_high": None if found is None else found.high,
    }


def _stem(column: str) -> str:
    """The figure whose interval or null's band ends in this column."""
    return column.removesuffix("_low").removesuffix("_high")
