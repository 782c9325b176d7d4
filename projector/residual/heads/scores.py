"""Score every head on repeated random tokens and by its weights, compared with random heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from projector.errors import UserError
from projector.model.architecture.stream.attention import HeadWeights
from projector.model.architecture.stream.patterns import plain_run
from projector.model.architecture.trial import one_line
from projector.model.capture import Call, Tap, capture, watch_calls
from projector.model.loading import input_device
from projector.progress import Progress, Silent
from projector.residual.circuits.copying import copying_scores
from projector.residual.circuits.tokens import grams_through_mlps
from projector.residual.circuits.vocabulary import model_grams
from projector.residual.circuits.weights import Circuits, find_circuits
from projector.residual.heads.kinds import (
    COPYING_KINDS,
    KINDS,
    LEAST_PERCENTILE,
    LEAST_RANDOM,
    MLP_COPYING_TOKENS,
    PATTERN_KINDS,
    HeadRow,
    Heads,
    Kind,
    is_kind,
)
from projector.residual.heads.nulls import (
    Axes,
    RandomHeads,
    expected_count,
    percentiles,
    random_copying,
)
from projector.residual.heads.repeats import Repeats
from projector.residual.settings import check_numbers
from projector.residual.subject import Subject


@dataclass(frozen=True)
class _Scored:
    """Some kinds' scores of a layer's heads, (n_kinds, A), and of random ones, (n_draws, …); and
    copying's with W_U as it is, (A,)."""

    scores: Tensor
    random: Tensor | None
    plain: Tensor | None = None


def score_heads(
    subject: Subject,
    *,
    n_sequences: int = 4,
    length: int = 50,
    n_random: int = 100,
    seed: int = 0,
    progress: Progress | None = None,
) -> Heads:
    """Score every head of a model for each kind, with random heads of the same spectra as control.

    This costs one forward pass, and for each layer ``n_random`` calls of its attention on
    ``n_sequences`` × (1 + 2·``length``) tokens; for copying, ``n_random`` eigenvalue problems d × d
    for each head, twice. One layer's patterns are in memory at a time.

    Args:
        n_sequences: number of sequences of random tokens.
        length: number of tokens before the repetition.
        n_random: number of random heads for each head. With fewer than 100, a 99th percentile can't
            be determined, so no head is assigned a kind; 0 also leaves out percentiles.
        seed: seed of the tokens and the random heads.

    Raises:
        SettingError: if a number is too small or too large.
        UserError: if the model is an encoder, because these kinds need causal attention; or if no
            layer has heads that can be analysed, with the reason.
    """
    return score_with_circuits(
        subject,
        n_sequences=n_sequences,
        length=length,
        n_random=n_random,
        seed=seed,
        progress=progress,
    )[0]


def score_with_circuits(
    subject: Subject,
    *,
    n_sequences: int,
    length: int,
    n_random: int,
    seed: int,
    progress: Progress | None = None,
) -> tuple[Heads, Circuits | None]:
    """Like :func:`score_heads`, but also returns the circuits found for it, or None if there are
    none.
    """
    check_numbers(n_sequences=n_sequences, length=length, n_random=n_random, seed=seed)
    progress = progress or Silent()
    if not subject.architecture.is_causal:
        raise UserError(
            "this model attends in both directions, but kinds of heads are defined for causal "
            "models only: give a causal model"
        )
    repeats = Repeats.draw(subject, n_sequences, length, seed)
    axes = Axes(n_random, seed)
    reasons: list[str] = []
    patterns = _score_patterns(subject, repeats, axes, progress, reasons)
    copying, circuits = _score_copying(subject, axes, progress, reasons)
    progress.end()
    if 0 < n_random < LEAST_RANDOM:
        reasons.append(
            f"no head is assigned a kind: {n_random} random heads can't show a percentile of "
            f"{LEAST_PERCENTILE:.0f}; give at least {LEAST_RANDOM}"
        )
    rows: list[HeadRow] = []
    expected: dict[str, float | None] = {}
    for layer, found in patterns.items():
        rows += _rows(subject, layer, found, copying.get(layer))
        for kind, at, scored in (
            *((kind, at, found) for at, kind in enumerate(PATTERN_KINDS)),
            *((kind, at, copying.get(layer)) for at, kind in enumerate(COPYING_KINDS)),
        ):
            if scored is not None and scored.random is not None and n_random >= LEAST_RANDOM:
                count = expected_count(scored.random[:, at], kind.least, LEAST_PERCENTILE)
                expected[kind.name] = (expected.get(kind.name) or 0.0) + count
    heads = Heads(
        rows=tuple(rows),
        expected={kind.name: expected.get(kind.name) for kind in KINDS},
        n_sequences=n_sequences,
        length=length,
        seed=seed,
        n_random=n_random,
        left_out={
            layer: weights.left_out
            for layer, weights in subject.attentions.items()
            if isinstance(weights, HeadWeights)
        },
        reasons=tuple(dict.fromkeys(reasons)),
    )
    return heads, circuits


def reason_of(error: Exception) -> str:
    """The one-line reason of an error for a missing result."""
    return str(error) if isinstance(error, UserError) else one_line(error)


def _score_patterns(
    subject: Subject, repeats: Repeats, axes: Axes, progress: Progress, reasons: list[str]
) -> dict[int, _Scored]:
    """The four kinds that patterns show, layer by layer, in one run of the model."""
    taps = subject.patterns
    places = {n: tap for n, tap in enumerate(taps.blocks) if not isinstance(tap, str)}
    missing = [tap for tap in taps.blocks if isinstance(tap, str)]
    reasons += [f"some layers have no scores: {reason}" for reason in dict.fromkeys(missing)]
    if not places:
        raise UserError(f"no head can be scored: {missing[0] if missing else 'no blocks'}")
    found: dict[int, _Scored] = {}
    progress.begin("Comparing patterns", len(places) * axes.n_draws, "draw")

    def score(layer: int, call: Call, first: Tensor, output: Any) -> None:
        place, weights = places[layer], subject.attentions[layer]
        scores = repeats.score(place.read(output))
        random = None
        try:
            if isinstance(weights, str):
                raise UserError(weights)
            drawn = RandomHeads(weights, place, axes)
        except UserError as error:
            reasons.append(f"some scores have no percentile: {error}")
            progress.advance(axes.n_draws)
        else:
            if axes.n_draws:
                each = []
                for pattern in drawn.patterns(call, first):
                    each.append(repeats.score(pattern))
                    progress.advance(1)
                random = torch.stack(each)
        found[layer] = _Scored(scores, random)

    ids = repeats.ids.to(input_device(subject.model))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    # Found before hooks are set: it runs the model itself.
    _ = subject.attentions
    modules = {layer: place.module for layer, place in places.items()}
    last = {"": Tap(subject.architecture.blocks[max(places)].module, "output")}
    with (
        plain_run(subject.model),
        watch_calls(modules, score),
        capture(last, lambda _, output: None, then_stop=True),
    ):
        subject.model(**inputs, **taps.settings(), use_cache=False)
    return found


def _score_copying(
    subject: Subject, axes: Axes, progress: Progress, reasons: list[str]
) -> tuple[dict[int, _Scored], Circuits | None]:
    """Copying by the weights, layer by layer, and the circuits."""
    layers = [n for n, each in subject.attentions.items() if isinstance(each, HeadWeights)]
    n_steps = len(layers) * len(COPYING_KINDS) * axes.n_draws
    progress.begin("Comparing copying", n_steps, "draw")
    found: dict[int, _Scored] = {}
    circuits: Circuits | None = None
    try:
        circuits = find_circuits(subject)
        reasons += [f"copying has no score: {each}" for each in circuits.reasons.values()]
        grams = model_grams(subject)
        through_mlps = grams_through_mlps(subject, circuits, most_tokens=MLP_COPYING_TOKENS)
        for each in circuits.layers:
            both = (grams.centred, through_mlps[each.layer])
            random = None
            if axes.n_draws:
                draws = [random_copying(each.ov, one, axes, progress.advance) for one in both]
                random = torch.stack(draws, 1)
            scores = torch.stack([copying_scores(each.ov, one) for one in both])
            found[each.layer] = _Scored(scores, random, copying_scores(each.ov, grams.plain))
    except (UserError, RuntimeError) as error:
        # What was scored before took minutes: it is kept, whatever fails here.
        reasons.append(f"copying has no score: {reason_of(error)}")
    return found, circuits


def _rows(subject: Subject, layer: int, found: _Scored, copying: _Scored | None) -> list[HeadRow]:
    weights = subject.attentions[layer]
    rows = []
    for head in range(found.scores.shape[1]):
        values: dict[str, float | None] = {}
        kinds: list[str] = []
        for at, kind in enumerate(PATTERN_KINDS):
            kinds += _score(values, kind, found, at, head)
        for at, kind in enumerate(COPYING_KINDS):
            kinds += _score(values, kind, copying, at, head)
        plain = None if copying is None else copying.plain
        values["copying_plain"] = None if plain is None else float(plain[head])
        group = weights.group[head] if isinstance(weights, HeadWeights) else None
        rows.append(HeadRow(layer, head, group, kinds=tuple(kinds), **values))  # type: ignore[arg-type]
    return rows


def _score(
    values: dict[str, float | None], kind: Kind, found: _Scored | None, at: int, head: int
) -> list[str]:
    """Enter one score and its percentile; the kind's name where the head is of it."""
    score, percentile = None, None
    if found is not None:
        score = float(found.scores[at, head])
        if found.random is not None:
            percentile = float(percentiles(found.scores[at, head], found.random[:, at, head]))
    values |= {kind.name: score, f"{kind.name}_percentile": percentile}
    if found is None or found.random is None or len(found.random) < LEAST_RANDOM:
        return []
    return [kind.name] if is_kind(kind, score, percentile) else []
