"""The causal test: a direction is added to the stream and projected out of it, compared with random
ones.

Both changes are made at every position, at the point where the direction was measured; tokens with
a norm many times the median are left unchanged.

Two kinds of controls have the direction's norm. Random directions are uniform over the whole space,
and lie almost entirely outside the directions along which the stream varies. Differences of means
under permuted labels lie within these directions, but are unrelated to the sets.
"""

# ruff: noqa: PT028 - no test of this program, but of a direction

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from projector.errors import SettingError, UserError, check_choice, check_least, check_seed
from projector.model.architecture.records import Architecture
from projector.model.context import longest_sequence
from projector.model.intervention import Ablation, Shift
from projector.progress import Progress, Silent
from projector.residual.directions.artifact import Directions
from projector.residual.directions.comparing import (
    SCALES,
    STREAM,
    Plan,
    Tail,
    Tested,
    effects_of,
    effects_without,
)
from projector.residual.directions.finding import (
    RowsOf,
    fit_rows,
    measure_directions,
    permuted_directions,
    random_directions,
    read_usual_norms,
)
from projector.residual.directions.records import Effect, Sets, Split, split_prompts
from projector.residual.directions.running import Rerunner, Text
from projector.residual.subject import Subject

__all__ = ["Effect", "check_room", "choose_layers", "test_directions"]

# Of each held-out prompt, as many tokens are tested at most.
_MOST_TOKENS_A_PROMPT = 32
# The share of the depth behind which the stream is changed.
_DEPTHS = (1 / 3, 1 / 2, 2 / 3)


def choose_layers(architecture: Architecture) -> tuple[int, ...]:
    """The layers after which a third, a half and two thirds of the blocks have run."""
    n = len(architecture.blocks)
    return tuple(sorted({max(0, round(n * share) - 1) for share in _DEPTHS}))


def test_directions(
    subject: Subject,
    sets: Sets,
    rows_of: RowsOf,
    *,
    layers: Sequence[int] | None = None,
    at: str = "last",
    continuations: Sequence[str] | None = None,
    n_prompts: int = 64,
    n_random: int = 3,
    n_permuted: int = 3,
    max_tokens: int = 1024,
    keep_outliers: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[Directions, tuple[Effect, ...]]:
    """Find the direction of every layer, and test some of them on held-out prompts.

    The difference of means is added with scales 1 and −1, and projected out. The same is done with
    two kinds of controls of the same norm: uniform random directions, and the difference of means
    under permuted labels. The opposite of a control is equally likely, so one run serves for both
    signs. The effect is measured on the log-perplexity of each set's held-out prompts, over their
    first 32 tokens, or on the log-probability of given continuations after them.

    This costs 3 + 2 · (``n_random`` + ``n_permuted``) runs of ``max_tokens`` tokens through the
    blocks after each of ``layers``.

    Args:
        sets: see :class:`projector.residual.contrast.prompts.PromptSets`.
        rows_of: returns the prompts' vectors after a layer, (n_positive, H) and (n_negative, H);
            see :func:`projector.residual.contrast.states.collect_states`.
        layers: the layers to test; after a third, a half and two thirds of the depth by default.
        at: what the rows are: a prompt's ``last`` token, or the ``mean`` over its tokens.
        continuations: texts that may follow each prompt, each with its leading space.
        n_prompts: largest number of held-out prompts: half from each set, at most 32 and at most a
            quarter of the set, in whole groups.
        n_random: number of random directions. n_permuted: number of directions of permuted labels.
        max_tokens: largest number of tokens to test, over both sets.
        keep_outliers: change the stream at tokens with outlying norms too. Projecting any direction
            out of a model's first token may affect every other token, because it is an attention
            sink.

    Returns:
        The directions, (H,) each, from the prompts that are not held out; and the effects by layer,
        with a ``reason`` if there are none.

    Raises:
        SettingError: on ``at``, ``layers``, ``n_prompts``, ``n_random``, ``n_permuted`` or
            ``seed``; on ``continuations``, see :func:`check_room`.
        UserError: if a prompt can't be read.
    """
    _check_settings(at, n_prompts, n_random, n_permuted, seed)
    progress = progress or Silent()
    chosen = _checked_layers(subject.architecture, layers)
    ids = tuple([tuple(subject.encode(p)) for p in each] for each in (sets.positive, sets.negative))
    tails = _tails(subject, continuations)
    _check_length(subject, ids, tails)
    lengths = tuple([_n_read(each, tails) for each in side] for side in ids)
    split = split_prompts(
        sets, (lengths[0], lengths[1]), n_prompts=n_prompts, max_tokens=max_tokens, seed=seed
    )
    usual = read_usual_norms(subject, ids)
    directions = measure_directions(
        subject, sets, rows_of, split, usual, at=at, keep_outliers=keep_outliers, seed=seed
    )
    groups = sets.positive_groups, sets.negative_groups
    drawn = {
        layer: _controls(directions, layer, rows_of, split, groups, (n_random, n_permuted), seed)
        for layer in chosen
        if (layer, STREAM) in directions.vectors
    }
    texts = _texts(ids, groups, split, tails)
    effects = _test(subject, directions, chosen, texts, tails, drawn, seed, progress)
    return directions, tuple(sorted(effects, key=lambda each: chosen.index(each.layer)))


# Pytest would take it for a test where it is imported.
test_directions.__test__ = False  # type: ignore[attr-defined]


def _test(
    subject: Subject,
    directions: Directions,
    layers: Sequence[int],
    texts: Sequence[Tested],
    tails: Sequence[Tail],
    controls: Mapping[int, tuple[Tensor, Tensor]],
    seed: int,
    progress: Progress,
) -> list[Effect]:
    """The effects at some layers, or why there are none.

    Args:
        controls: of each layer, the random directions and those of permuted labels.
    """
    norms = [(layer, _norm(directions, layer)) for layer in layers]
    none = [(layer, norm) for layer, norm in norms if not norm]
    effects = effects_without(none, tails, "both sets have the same mean, so there is no direction")
    tested = [layer for layer, norm in norms if norm]
    if not tested:
        return effects
    try:
        runner = Rerunner(subject, [each.text for each in texts], tested)
    except UserError as error:
        return effects_without(norms, tails, str(error))
    # Each control is added once, whatever the sign of the direction beside it.
    done: dict[tuple[int, str, float | None, int], Tensor] = {}
    n_runs = sum(3 + 2 * sum(map(len, controls[layer])) for layer in tested)
    progress.begin("Testing the direction", n_runs, "runs")
    for plan in _plans(subject, directions, tested, controls):
        for i, run in enumerate(plan.runs):
            key = plan.key(i)
            if key not in done:
                done[key] = runner.run(plan.layer, [run])
                progress.advance(1)
        found = [done[plan.key(i)] for i in range(len(plan.runs))]
        effects += effects_of(plan, texts, runner.plain, found, tails, seed)
    progress.end()
    return effects


def _check_settings(at: str, n_prompts: int, n_random: int, n_permuted: int, seed: int) -> None:
    check_choice("at", at, ("last", "mean"))
    check_least("n_prompts", n_prompts, 2)
    check_least("n_random", n_random, 1)
    check_least("n_permuted", n_permuted, 0)
    check_seed("seed", seed)


def _checked_layers(architecture: Architecture, layers: Sequence[int] | None) -> tuple[int, ...]:
    if layers is None:
        return choose_layers(architecture)
    n = len(architecture.blocks)
    for layer in layers:
        if not 0 <= layer < n:
            raise SettingError(
                "layers", layer, "is not a layer of this model", f"give 0 to {n - 1}"
            )
    return tuple(dict.fromkeys(layers))


def _tails(subject: Subject, continuations: Sequence[str] | None) -> list[Tail]:
    if continuations is None:
        return [Tail()]
    found = []
    for text in continuations:
        ids = subject.loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
        if not ids:
            raise SettingError("continuations", text, "has no token", "give some text")
        found.append(Tail(text, tuple(int(i) for i in ids)))
    if not found:
        raise SettingError("continuations", [], "is empty", "give at least one text")
    return found


def check_room(subject: Subject, sets: Sets, continuations: Sequence[str] | None) -> None:
    """Raise an error if a continuation can't follow every prompt; the model isn't run.

    Raises:
        SettingError: on ``continuations``, if the list is empty, one has no token, or one exceeds
            the model's context after the longest prompt.
        UserError: if a prompt can't be read.
    """
    if continuations is None:
        return
    ids = [[subject.encode(prompt) for prompt in each] for each in (sets.positive, sets.negative)]
    _check_length(subject, ids, _tails(subject, continuations))


def _check_length(
    subject: Subject, ids: Sequence[Sequence[Sequence[int]]], tails: Sequence[Tail]
) -> None:
    most = longest_sequence(subject.model)
    longest = max(len(prompt) for side in ids for prompt in side)
    tail = max(tails, key=lambda each: len(each.ids))
    if most is not None and tail.text is not None and longest + len(tail.ids) > most:
        raise SettingError(
            "continuations",
            tail.text,
            f"does not fit after every prompt: it has {len(tail.ids):,} tokens, the longest "
            f"prompt {longest:,}, and the model's context is {most:,}",
            "give a shorter one, or leave out long prompts",
        )


def _norm(directions: Directions, layer: int) -> float:
    """Of a layer's direction; 0 if it has none."""
    vector = directions.vectors.get((layer, STREAM))
    return 0.0 if vector is None else float(vector.norm())


def _n_read(ids: Sequence[int], tails: Sequence[Tail]) -> int:
    if tails[0].text is None:
        return min(len(ids), _MOST_TOKENS_A_PROMPT)
    return sum(len(ids) + len(tail.ids) for tail in tails)


def _texts(
    ids: Sequence[Sequence[tuple[int, ...]]],
    groups: tuple[Sequence[int], Sequence[int]],
    split: Split,
    tails: Sequence[Tail],
) -> list[Tested]:
    found = []
    for side, numbers in enumerate((split.tested_positive, split.tested_negative)):
        for number in numbers:
            prompt = ids[side][number]
            for i, tail in enumerate(tails):
                text = (
                    Text(prompt[:_MOST_TOKENS_A_PROMPT])
                    if tail.text is None
                    else Text((*prompt, *tail.ids), len(prompt))
                )
                found.append(Tested(text, side, i, groups[side][number]))
    return found


def _controls(
    directions: Directions,
    layer: int,
    rows_of: RowsOf,
    split: Split,
    groups: tuple[Sequence[int], Sequence[int]],
    n: tuple[int, int],
    seed: int,
) -> tuple[Tensor, Tensor]:
    """(n_random, H) random directions and (n_permuted, H) of permuted labels, for one layer."""
    vector, numbers = directions.at_layer(layer), (split.fit_positive, split.fit_negative)
    of_rows = [[groups[side][k] for k in numbers[side]] for side in (0, 1)]
    rows = fit_rows(rows_of, layer, split)
    return (
        random_directions(vector, n[0], seed + layer),
        permuted_directions(rows, (of_rows[0], of_rows[1]), vector, n[1], seed + layer),
    )


def _plans(
    subject: Subject,
    directions: Directions,
    layers: Sequence[int],
    controls: Mapping[int, tuple[Tensor, Tensor]],
) -> Iterator[Plan]:
    for layer in layers:
        tap = subject.architecture.blocks[layer].taps[STREAM]
        vector = directions.at_layer(layer)
        norm, most = float(vector.norm()), directions.most_norm(layer)
        n_random, drawn = len(controls[layer][0]), torch.cat(controls[layer])
        for scale in SCALES:
            shifts = [Shift(tap, vector, scale, most), *(Shift(tap, r, 1.0, most) for r in drawn)]
            yield Plan(layer, "added", scale, norm, tuple(shifts), n_random)
        ablations = tuple(Ablation(tap, each, most) for each in (vector, *drawn))
        yield Plan(layer, "ablated", None, norm, ablations, n_random)
