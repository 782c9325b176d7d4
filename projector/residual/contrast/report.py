"""How two sets of prompts part over the layers of one or several models, in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from projector.errors import SettingError, UserError
from projector.progress import Progress, Silent
from projector.residual.contrast.growth import Growth, average_growth, measure_growth
from projector.residual.contrast.measures import Draws, measure_means
from projector.residual.contrast.prompts import (
    PromptSets,
    choose_sets,
    fits_all,
    tokenizer_note,
)
from projector.residual.contrast.records import Interval, Point, PointMeasures
from projector.residual.contrast.settings import ContrastSettings, check_models
from projector.residual.contrast.sharing.measuring import measure_sharing
from projector.residual.contrast.sharing.records import Sharing
from projector.residual.contrast.states import States, collect_states
from projector.residual.contrast.untangling.measuring import measure_point
from projector.residual.contrast.untangling.records import Untangling
from projector.residual.directions.artifact import Directions
from projector.residual.directions.effects import test_directions as measure_effects
from projector.residual.directions.records import Effect
from projector.residual.subject import Subject

if TYPE_CHECKING:
    from projector.model.loading import LoadedModel

__all__ = ["Contrast", "ModelContrast", "contrast"]

_AT_EMBEDDING = "no block has written to the stream yet"
_EMPTY = "there is none"


@dataclass(frozen=True, eq=False)
class ModelContrast:
    """What was found of one model.

    Attributes:
        name: the model's identifier; no two of a contrast are the same.
        weights_sha256: of its weights.
        states: one vector a prompt at every place of the stream.
        measures: of each of ``states.points``.
        block_growth: of each layer's whole block: the mean of both sets, the first and the second.
        attention_growth: likewise of the step to ``resid_mid``; of the layers that have one.
        sharing: whether successive layers write in the same directions; None with ``reasons``.
        untangling: of each of ``states.points``.
        directions: None with ``reasons``.
        effects: of the directions, by layer.
        reasons: why a part is missing, by its name.
    """

    name: str
    weights_sha256: str
    states: States
    measures: Mapping[Point, PointMeasures]
    block_growth: Mapping[int, tuple[Growth, Growth, Growth]]
    attention_growth: Mapping[int, tuple[Growth, Growth, Growth]]
    sharing: Sharing | None
    untangling: Mapping[Point, Untangling]
    directions: Directions | None
    effects: tuple[Effect, ...]
    reasons: Mapping[str, str] = field(default_factory=dict)

    def growth_before(self, point: Point) -> Growth | None:
        """The growth of the step that leads to a place; None at the embedding."""
        if point.stream == "resid_mid":
            return self.attention_growth[point.layer][0]
        layer = point.layer - (point.stream == "resid_pre")
        return None if layer < 0 else self.block_growth[layer][0]

    def row(self, point: Point) -> dict[str, Any]:
        """The row of ``report.json`` of a place."""
        found, growth = self.measures[point], self.growth_before(point)
        untangling = self.untangling[point]
        parts = ("pre", "update", "covariance")
        shares = {f"growth_{part}": getattr(growth, part, None) for part in parts}
        variances = [
            f"variance_{what}_{side}"
            for what in ("mean", "max")
            for side in ("positive", "negative")
        ]
        nulls = {"cosine_split_half": found.split_half, "cosine_permuted": found.permuted}
        return {
            "model": self.name,
            "layer": point.layer,
            "stream": point.stream,
            "cosine": _value(found.cosine),
            **_ends("cosine", found.cosine),
            **{name: _value(null) for name, null in nulls.items()},
            **{name: _value(getattr(found, name)) for name in variances},
            **shares,
            "probe_accuracy": untangling.probe_accuracy,
            "probe_permuted": untangling.probe_permuted,
            **{k: v for name, null in nulls.items() for k, v in _ends(name, null).items()},
            **{k: v for name in variances for k, v in _ends(name, getattr(found, name)).items()},
            "mean_norm_positive": found.mean_norm_positive,
            "mean_norm_negative": found.mean_norm_negative,
            "difference_norm": found.difference_norm,
            "difference_norm_permuted": _value(found.difference_permuted),
            "probe_permuted_high": untangling.probe_permuted_high,
            "probe_embedding": self._embedding_accuracy(),
        }

    def growth_entries(self) -> list[dict[str, Any]]:
        """A whole block each: the mean of both sets, and each set apart."""
        found = []
        for layer, (mean, positive, negative) in self.block_growth.items():
            sets = {"positive": positive.as_dict(), "negative": negative.as_dict()}
            found.append({"model": self.name, "layer": layer, **mean.as_dict(), **sets})
        return found

    def untangling_entries(self) -> list[dict[str, Any]]:
        """A place each, with the accuracy of a probe of the embedding alone beside it."""
        baseline = {"embedding_accuracy": self._embedding_accuracy()}
        return [
            {"model": self.name, **asdict(point), **found.as_dict(), **baseline}
            for point, found in self.untangling.items()
        ]

    def direction_entries(self) -> list[dict[str, Any]]:
        """An effect each; one entry with the reason where there are none."""
        if self.effects:
            return [{"model": self.name, **each.as_dict()} for each in self.effects]
        return [{"model": self.name, "reason": self.reasons.get("directions", _EMPTY)}]

    def sharing_entry(self) -> dict[str, Any]:
        """What :class:`Sharing` holds; or the reason."""
        if self.sharing is None:
            return {"model": self.name, "reason": self.reasons["sharing"]}
        return {"model": self.name, **self.sharing.as_dict()}

    def why_missing(self) -> dict[str, dict[str, str]]:
        """Why figures of a row are null (or a variance 0), by place; and why places are missing."""
        found = {name: {"rows": why} for name, why in self.states.missing.items()}
        if self.reasons:
            found["all"] = dict(self.reasons)
        for point, measures in self.measures.items():
            reasons = dict(measures.reasons)
            growth = self.growth_before(point)
            for part in ("pre", "update", "covariance"):
                if growth is None:
                    reasons[f"growth_{part}"] = _AT_EMBEDDING
                elif getattr(growth, part) is None:
                    reasons[f"growth_{part}"] = growth.reasons.get(part, _EMPTY)
            given = self.untangling[point].reasons
            names = ("probe_accuracy", "probe_permuted")
            reasons |= {name: given[name] for name in names if name in given}
            if reasons:
                found[f"layer {point.layer} {point.stream}"] = reasons
        return found

    def _embedding_accuracy(self) -> float | None:
        found = self.untangling.get(Point(0, "resid_pre"))
        return None if found is None else found.probe_accuracy


@dataclass(frozen=True, eq=False)
class Contrast:
    """What was found of two sets of prompts in one or several models.

    Attributes:
        sets: the prompts.
        at: "last" or "mean".
        seed: of every draw.
        n_draws: of each null.
        models: what was found of each.
        notes: what to know about the prompts and tokens, a sentence each.
    """

    sets: PromptSets
    at: str
    seed: int
    n_draws: int
    models: tuple[ModelContrast, ...]
    notes: tuple[str, ...]

    @property
    def directions(self) -> tuple[Directions, ...]:
        """Of each model that has them."""
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


def contrast(
    models: Sequence[Subject | LoadedModel | str] | Subject | LoadedModel | str,
    *,
    positive: Path | str | None = None,
    negative: Path | str | None = None,
    pair: str | None = None,
    sets: PromptSets | None = None,
    at: str = "last",
    layers: Sequence[int] | None = None,
    n_draws: int = 100,
    seed: int = 0,
    keep_outliers: bool = False,
    continuations: Sequence[str] | None = None,
    n_prompts: int = 64,
    progress: Progress | None = None,
) -> Contrast:
    """Measure how two sets of prompts part over the layers, and test the direction between them.

    All models read the same prompts, each as its own tokens. Equal arguments give equal figures.

    Args:
        models: one or several: names, folders, or models that are loaded.
        positive: the file of the first set, one prompt a line, or ``.jsonl``; with ``negative``.
        negative: the file of the second set.
        pair: sets that the project makes, in place of files; ``code-docstrings`` by default.
        sets: prompts at hand, in place of files and a pair.
        at: "last", each prompt's last token; "mean", the mean over its tokens.
        layers: where the direction is tested; a third, a half and two thirds of the depth by
            default.
        n_draws: how often nulls are drawn.
        seed: of every draw.
        keep_outliers: whether means over tokens count those of an outlying norm.
        continuations: texts whose probability tells what the direction does; the perplexity of
            prompts by default.
        n_prompts: how many prompts the direction is tested on at most.

    Raises:
        SettingError: on the argument that can't be used.
        UserError: if prompts or a model can't be read, or the sums of a model's parts do not close.
    """
    settings = ContrastSettings(
        positive=None if positive is None else Path(positive),
        negative=None if negative is None else Path(negative),
        pair=pair,
        at=at,
        layers=None if layers is None else tuple(layers),
        n_draws=n_draws,
        seed=seed,
        keep_outliers=keep_outliers,
    )
    if sets is not None and (positive or negative or pair):
        raise SettingError(
            "sets", sets.name, "can't be combined with files or a pair", "give one of them"
        )
    progress = progress or Silent()
    is_one = isinstance(models, str) or not isinstance(models, Sequence)
    given: Sequence[Any] = [models] if is_one else models  # type: ignore[assignment]
    if not given or any(isinstance(each, str) for each in given):
        check_models([each for each in given if isinstance(each, str)])
    subjects = [Subject.of(each) for each in given]
    _check_layers(subjects, settings.layers)
    chosen = choose_sets(settings, fits_all(subjects)) if sets is None else sets
    draws = Draws(chosen.positive_groups, chosen.negative_groups, n_draws=n_draws, seed=seed)
    tested = {"layers": settings.layers, "continuations": continuations, "n_prompts": n_prompts}
    found = [
        _of_model(subject, name, chosen, settings, draws, tested, progress)
        for subject, name in zip(subjects, _names(subjects), strict=True)
    ]
    notes = [*chosen.notes]
    if note := tokenizer_note(subjects, chosen):
        notes.append(note)
    for each in found:
        prefix = f"{each.name}: " if len(found) > 1 else ""
        notes += [prefix + text for text in _notes_on(each, chosen, settings)]
    return Contrast(chosen, at, seed, n_draws, tuple(found), tuple(notes))


def _check_layers(subjects: Sequence[Subject], layers: Sequence[int] | None) -> None:
    n = min(len(each.architecture.blocks) for each in subjects)
    for layer in layers or ():
        if layer >= n:
            raise SettingError(
                "layers", layer, "is not a layer of every model", f"give 0 to {n - 1}"
            )


def _names(subjects: Sequence[Subject]) -> list[str]:
    names: list[str] = []
    for each in subjects:
        own = name = each.loaded.identifier
        number = 2
        while name in names:
            name, number = f"{own} ({number})", number + 1
        names.append(name)
    return names


def _of_model(
    subject: Subject,
    name: str,
    sets: PromptSets,
    settings: ContrastSettings,
    draws: Draws,
    tested: Mapping[str, Any],
    progress: Progress,
) -> ModelContrast:
    at, n_draws, seed = settings.at, settings.n_draws, settings.seed
    states = collect_states(
        subject, sets, at=at, keep_outliers=settings.keep_outliers, progress=progress
    )
    measures: dict[Point, PointMeasures] = {}
    untangling: dict[Point, Untangling] = {}
    progress.begin("Measuring the streams", len(states.points), "places")
    for point in states.points:
        held = states.first_name(point)
        if held not in measures:
            pair = states.at(held)
            measures[held] = measure_means(*pair, draws)
            groups = sets.positive_groups, sets.negative_groups
            untangling[held] = measure_point(*pair, *groups, seed=seed)
        measures[point], untangling[point] = measures[held], untangling[held]
        progress.advance(1)
    progress.end()
    block_growth, attention_growth = _growth(states)
    reasons: dict[str, str] = {}
    sharing: Sharing | None = None
    directions: Directions | None = None
    effects: tuple[Effect, ...] = ()
    progress.begin("Comparing layers", None, "layers")
    try:
        sharing = measure_sharing(subject, states.update, n_draws=n_draws, seed=seed)
    except SettingError:
        raise
    except UserError as error:
        reasons["sharing"] = str(error)
    progress.end()
    try:
        directions, effects = measure_effects(
            subject,
            sets,
            at=at,
            seed=seed,
            rows_of=lambda layer, stream: states.at(Point(layer, stream)),
            progress=progress,
            **tested,
        )
    except SettingError:
        raise
    except UserError as error:
        reasons["directions"] = str(error)
    return ModelContrast(
        name=name,
        weights_sha256=subject.loaded.weights_sha256,
        states=states,
        measures={point: measures[point] for point in states.points},
        block_growth=block_growth,
        attention_growth=attention_growth,
        sharing=sharing,
        untangling={point: untangling[point] for point in states.points},
        directions=directions,
        effects=effects,
        reasons=reasons,
    )


Averaged = tuple[Growth, Growth, Growth]


def _growth(states: States) -> tuple[dict[int, Averaged], dict[int, Averaged]]:
    """Of every whole block, and of the step to ``resid_mid`` where there is one."""
    blocks: dict[int, Averaged] = {}
    attention: dict[int, Averaged] = {}
    places = set(states.points)
    for layer in range(states.n_layers):
        pre, post = (states.at(Point(layer, f"resid_{name}")) for name in ("pre", "post"))
        parts = states.updates(layer)
        blocks[layer] = _averaged(
            [
                measure_growth(
                    pre[side],
                    None if parts.attention is None else parts.attention[side],
                    None if parts.mlp is None else parts.mlp[side],
                    post[side],
                )
                for side in (0, 1)
            ]
        )
        if Point(layer, "resid_mid") in places:
            mid = states.at(Point(layer, "resid_mid"))
            attention[layer] = _averaged(
                [measure_growth(pre[side], None, None, mid[side]) for side in (0, 1)]
            )
    return blocks, attention


def _averaged(each: Sequence[Growth]) -> Averaged:
    return average_growth(each), each[0], each[1]


def _notes_on(found: ModelContrast, sets: PromptSets, settings: ContrastSettings) -> list[str]:
    """What to know about one model's prompts and tokens."""
    notes = []
    states = found.states
    measured = found.measures.get(Point(0, "resid_pre"))
    for side, name in (("positive", sets.positive_name), ("negative", sets.negative_name)):
        if measured is not None and f"variance_mean_{side}" in measured.reasons:
            where = "end in the same token" if settings.at == "last" else "have the same tokens"
            notes.append(f"All prompts of {name} {where}: they have no variance at the embedding.")
    if settings.at == "last" and states.n_outlying_last:
        n = states.n_outlying_last
        whose = "1 prompt has" if n == 1 else f"{n:,} prompts have"
        notes.append(f"{whose} a last token of outlying norm, which counts.")
    if settings.at == "mean" and states.n_outlying:
        n, out = states.n_outlying, states.n_left_out
        have = "1 token has" if n == 1 else f"{n:,} tokens have"
        done = f"means leave {out:,} of them out" if out else "means count them"
        notes.append(f"{have} a norm many times the median of their prompt: {done}.")
    if states.parts_reason is not None:
        notes.append(f"Attention's and the MLP's updates are not split: {states.parts_reason}.")
    return notes


def _value(found: Interval | None) -> float | None:
    return None if found is None else found.value


def _ends(name: str, found: Interval | None) -> dict[str, float | None]:
    return {
        f"{name}_low": None if found is None else found.low,
        f"{name}_high": None if found is None else found.high,
    }
