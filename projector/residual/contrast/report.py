"""Contrast two sets of prompts over the layers of one or several models in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from projector.errors import SettingError, UserError
from projector.model.loading import count_layers
from projector.progress import Progress, Silent
from projector.residual.contrast.found import Averaged, Contrast, ModelContrast
from projector.residual.contrast.growth import Growth, average_growth, measure_growth
from projector.residual.contrast.measures import Draws, measure_means
from projector.residual.contrast.prompts import (
    PromptSets,
    choose_sets,
    encode_sets,
    fits_all,
    tokenizer_note,
)
from projector.residual.contrast.records import Point, PointMeasures
from projector.residual.contrast.settings import (
    ContrastSettings,
    check_continuations,
    check_layers,
    check_models,
)
from projector.residual.contrast.sharing.measuring import measure_sharing
from projector.residual.contrast.sharing.records import Sharing
from projector.residual.contrast.states import States, collect_states
from projector.residual.contrast.untangling.measuring import measure_point
from projector.residual.contrast.untangling.records import Untangling
from projector.residual.directions.artifact import Directions
from projector.residual.directions.effects import check_room
from projector.residual.directions.effects import test_directions as measure_effects
from projector.residual.directions.records import Effect
from projector.residual.subject import Subject

if TYPE_CHECKING:
    from projector.model.loading import LoadedModel

__all__ = ["Contrast", "ModelContrast", "contrast"]


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
    """Measure how two sets of prompts separate over the layers, and test the direction between
    them.

    All models read the same prompts, each with its own tokenizer. Equal arguments give equal
    figures.

    Args:
        models: one or several names, folders, or loaded models.
        positive: the file of the first set, one prompt a line, or ``.jsonl``; with ``negative``.
        negative: the file of the second set.
        pair: built-in sets to use instead of files; ``code-docstrings`` by default.
        sets: existing sets of prompts, instead of files or a pair.
        at: "last", each prompt's last token; "mean", the mean over its tokens.
        layers: the layers at which the direction is tested; a third, a half and two thirds of the
            depth by default.
        n_draws: number of random halves, permutations and rotations for each null; a bootstrap has
            at least 1,000 samples.
        seed: of every draw.
        keep_outliers: whether means over tokens include those with an outlying norm.
        continuations: texts to measure the direction's effect on the probability of; by default,
            the effect on the perplexity of prompts is measured.
        n_prompts: largest number of prompts to test the direction on.

    Raises:
        SettingError: on the argument that can't be used.
        UserError: if prompts or a model can't be read, or the sums of a model's parts don't close.
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
    check_continuations(continuations)
    subjects = _open(models, settings.layers)
    check_layers(settings.layers, [len(each.architecture.blocks) for each in subjects])
    chosen = choose_sets(settings, fits_all(subjects)) if sets is None else sets
    for subject in subjects:
        check_room(subject, chosen, continuations)
    for each in subjects:
        # A prompt that one of them can't read is told before any of them runs.
        encode_sets(each, chosen)
    draws = Draws(chosen.positive_groups, chosen.negative_groups, n_draws=n_draws, seed=seed)
    tested = {
        "layers": settings.layers,
        "continuations": continuations,
        "n_prompts": n_prompts,
        "keep_outliers": settings.keep_outliers,
    }
    found = [
        _of_model(subject, name, chosen, settings, draws, tested, progress)
        for subject, name in zip(subjects, _names(subjects), strict=True)
    ]
    notes = _notes(subjects, found, chosen, settings)
    return Contrast(chosen, at, seed, n_draws, tuple(found), notes)


def _open(
    models: Sequence[Subject | LoadedModel | str] | Subject | LoadedModel | str,
    layers: Sequence[int] | None,
) -> list[Subject]:
    is_one = isinstance(models, str) or not isinstance(models, Sequence)
    given: Sequence[Any] = [models] if is_one else models  # type: ignore[assignment]
    if not given or any(isinstance(each, str) for each in given):
        names = [each for each in given if isinstance(each, str)]
        check_models(names)
        if layers is not None:
            check_layers(layers, [count_layers(name) for name in names])
    return [Subject.of(each) for each in given]


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
            untangling[held] = measure_point(*pair, *groups, n_permutations=n_draws, seed=seed)
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
            lambda layer, stream: states.at(Point(layer, stream)),
            at=at,
            seed=seed,
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


def _notes(
    subjects: Sequence[Subject],
    found: Sequence[ModelContrast],
    sets: PromptSets,
    settings: ContrastSettings,
) -> tuple[str, ...]:
    """What to know about prompts and tokens; of several models, each note with the name."""
    notes = [*sets.notes]
    if note := tokenizer_note(subjects, sets):
        notes.append(note)
    for each in found:
        prefix = f"{each.name}: " if len(found) > 1 else ""
        notes += [prefix + text for text in _notes_on(each, sets, settings)]
    return tuple(notes)


def _notes_on(found: ModelContrast, sets: PromptSets, settings: ContrastSettings) -> list[str]:
    """What to know about one model's prompts and tokens."""
    notes = []
    states = found.states
    measured = found.measures.get(Point(0, "resid_pre"))
    for side, name in (("positive", sets.positive_name), ("negative", sets.negative_name)):
        variance = None if measured is None else getattr(measured, f"variance_mean_{side}")
        if variance is not None and variance.value == 0:
            where = "end in the same token" if settings.at == "last" else "have the same tokens"
            notes.append(f"All prompts of {name} {where}: they have no variance at the embedding.")
    if settings.at == "last" and states.n_outlying_last:
        n = states.n_outlying_last
        whose = "1 prompt has" if n == 1 else f"{n:,} prompts have"
        notes.append(
            f"{whose} a last token of outlying norm, which counts in every figure, and "
            "in the direction."
        )
    if settings.at == "mean" and states.n_outlying:
        n, out = states.n_outlying, states.n_left_out
        have = "1 token has" if n == 1 else f"{n:,} tokens have"
        done = f"means leave {out:,} of them out" if out else "means count them"
        notes.append(f"{have} a norm many times the median of their prompt: {done}.")
    if states.parts_reason is not None:
        notes.append(f"Attention's and the MLP's updates are not split: {states.parts_reason}.")
    return notes
