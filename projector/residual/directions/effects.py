"""The causal test: a direction is added to the stream and projected out of it, beside random ones.

Both are done at every position, at the place where the direction was measured; tokens whose norm
there is many times the median are left as they are.
"""

# ruff: noqa: PT028 - no test of this program, but of a direction

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from projector.errors import SettingError, UserError, check_choice, check_least, check_seed
from projector.model.architecture.records import Architecture
from projector.model.intervention import Ablation, Intervention, Shift
from projector.progress import Progress, Silent
from projector.residual.directions.artifact import Directions
from projector.residual.directions.finding import (
    RowsOf,
    measure_directions,
    random_directions,
    read_rows,
    read_usual_norms,
)
from projector.residual.directions.records import Effect, Sets, Split, split_prompts
from projector.residual.directions.running import Rerunner, Text
from projector.residual.subject import Subject

__all__ = ["Effect", "choose_layers", "test_directions"]

# Of each held-out prompt, as many tokens are tested at most.
_MOST_TOKENS_A_PROMPT = 32
# The share of the depth behind which the stream is changed.
_DEPTHS = (1 / 3, 1 / 2, 2 / 3)
_SCALES = (1.0, -1.0)
_N_RESAMPLED = 1000
_STREAM = "resid_post"
# The third is the difference of the other two, of perplexity alone.
SETS = ("positive", "negative", "difference")


def choose_layers(architecture: Architecture) -> tuple[int, ...]:
    """The layers behind which a third, a half and two thirds of the blocks have run."""
    n = len(architecture.blocks)
    return tuple(sorted({max(0, round(n * share) - 1) for share in _DEPTHS}))


def test_directions(
    subject: Subject,
    sets: Sets,
    *,
    layers: Sequence[int] | None = None,
    at: str = "last",
    continuations: Sequence[str] | None = None,
    n_prompts: int = 64,
    n_random: int = 3,
    max_tokens: int = 1024,
    keep_outliers: bool = False,
    seed: int = 0,
    rows_of: RowsOf | None = None,
    progress: Progress | None = None,
) -> tuple[Directions, tuple[Effect, ...]]:
    """Find the direction of every layer, and test that of some on prompts it was not made of.

    The difference of means is added once and taken away once (scale 1 and −1), and projected out;
    so are random directions of the same norm, drawn evenly over all directions; the opposite of a
    random direction is as random, so one run of each stands for both signs. The effect is on
    the log-perplexity of each set's held-out prompts, of whose tokens the first 32 are read; or on
    the log-probability of given continuations after them.

    Costs 3 + 2 · ``n_random`` runs of ``max_tokens`` tokens through the blocks behind each
    of ``layers``.

    Args:
        sets: see :class:`projector.residual.contrast.prompts.PromptSets`.
        layers: whose direction is tested; behind a third, a half and two thirds of the depth by
            default.
        at: what of a prompt the direction is of: its ``last`` token, or the ``mean`` of its tokens.
        continuations: texts that may follow each prompt, each with its space.
        n_prompts: the most that are held out: half of them of each set, at most 32 and at most a
            quarter of the set, whole groups at a time.
        n_random: how many random directions there are.
        max_tokens: the most tokens that are tested, of both sets together.
        keep_outliers: count tokens with outlying norms in the means, and change the stream there
            too. A direction that is projected out of a model's first token may change what every
            other token rests on, whatever the direction.
        rows_of: gives the prompts' vectors where they were collected before; without it the model
            reads all prompts.

    Returns:
        The directions, (H,) each, of the prompts that are not held out: these are tested. And the
        effects, by layer; where there can be none, their ``reason`` says why.

    Raises:
        SettingError: on ``at``, ``layers``, ``n_prompts``, ``n_random`` or ``seed``.
        UserError: if a prompt can't be read.
    """
    check_choice("at", at, ("last", "mean"))
    check_least("n_prompts", n_prompts, 2)
    check_least("n_random", n_random, 1)
    check_seed("seed", seed)
    progress = progress or Silent()
    chosen = _checked_layers(subject.architecture, layers)
    ids = tuple([tuple(subject.encode(p)) for p in each] for each in (sets.positive, sets.negative))
    tails = _tails(subject, continuations)
    lengths = tuple([_n_read(each, tails) for each in side] for side in ids)
    split = split_prompts(
        sets, (lengths[0], lengths[1]), n_prompts=n_prompts, max_tokens=max_tokens, seed=seed
    )
    rows_of = rows_of or read_rows(
        subject, ids, at=at, keep_outliers=keep_outliers, progress=progress
    )
    directions = measure_directions(
        subject,
        sets,
        rows_of,
        split,
        read_usual_norms(subject, ids),
        at=at,
        keep_outliers=keep_outliers,
        seed=seed,
    )
    texts = _texts(ids, split, tails)
    tested = [layer for layer in chosen if (layer, _STREAM) in directions.vectors]
    norms = [(i, _norm(directions, i)) for i in chosen]
    without = [(i, norm) for i, norm in norms if not norm]
    effects = _without(without, tails, "the sets have the same mean here: there is no direction")
    if not tested:
        return directions, tuple(effects)
    try:
        runner = Rerunner(subject, [each.text for each in texts], tested)
    except UserError as error:
        return directions, tuple(_without(norms, tails, str(error)))
    plans = list(_plans(subject, directions, tested, n_random, seed))
    generator = np.random.default_rng(seed)
    # Each random direction is added once, whatever the sign of the direction beside it.
    done: dict[tuple[int, str, float | None, int], Tensor] = {}
    progress.begin("Testing the direction", (3 + 2 * n_random) * len(tested), "runs")
    for plan in plans:
        for i, run in enumerate(plan.runs):
            key = plan.key(i)
            if key not in done:
                done[key] = runner.run(plan.layer, [run])
                progress.advance(1)
        found = [done[plan.key(i)] for i in range(len(plan.runs))]
        effects += _effects(plan, texts, runner.plain, found, tails, generator)
    progress.end()
    return directions, tuple(sorted(effects, key=lambda each: chosen.index(each.layer)))


# Pytest would take it for a test where it is imported.
test_directions.__test__ = False  # type: ignore[attr-defined]


@dataclass(frozen=True, eq=False)
class _Tail:
    """A continuation and its tokens; of perplexity, neither."""

    text: str | None = None
    ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class _Tested:
    """A text that is run, the set it is of, and the number of its continuation."""

    text: Text
    side: int
    tail: int


@dataclass(frozen=True)
class _Plan:
    """One change, by the direction and then by random ones."""

    layer: int
    change: str
    scale: float | None
    norm: float
    runs: tuple[Intervention, ...]

    def key(self, i: int) -> tuple[int, str, float | None, int]:
        """What the i-th run is told by: a random direction is added with one sign only."""
        return (self.layer, self.change, None if i else self.scale, i)


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


def _tails(subject: Subject, continuations: Sequence[str] | None) -> list[_Tail]:
    if continuations is None:
        return [_Tail()]
    found = []
    for text in continuations:
        ids = subject.loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
        if not ids:
            raise SettingError("continuations", text, "has no token", "give some text")
        found.append(_Tail(text, tuple(int(i) for i in ids)))
    if not found:
        raise SettingError("continuations", [], "is empty", "give at least one text")
    return found


def _norm(directions: Directions, layer: int) -> float:
    """Of a layer's direction; 0 where it has none."""
    vector = directions.vectors.get((layer, _STREAM))
    return 0.0 if vector is None else float(vector.norm())


def _n_read(ids: Sequence[int], tails: Sequence[_Tail]) -> int:
    if tails[0].text is None:
        return min(len(ids), _MOST_TOKENS_A_PROMPT)
    return sum(len(ids) + len(tail.ids) for tail in tails)


def _texts(
    ids: Sequence[Sequence[tuple[int, ...]]], split: Split, tails: Sequence[_Tail]
) -> list[_Tested]:
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
                found.append(_Tested(text, side, i))
    return found


def _plans(
    subject: Subject, directions: Directions, layers: Sequence[int], n_random: int, seed: int
) -> Iterator[_Plan]:
    for layer in layers:
        tap = subject.architecture.blocks[layer].taps[_STREAM]
        vector = directions.at_layer(layer)
        norm, most = float(vector.norm()), directions.most_norm(layer)
        drawn = random_directions(vector, n_random, seed + layer)
        for scale in _SCALES:
            shifts = [Shift(tap, vector, scale, most), *(Shift(tap, r, 1.0, most) for r in drawn)]
            yield _Plan(layer, "added", scale, norm, tuple(shifts))
        ablations = tuple(Ablation(tap, each, most) for each in (vector, *drawn))
        yield _Plan(layer, "ablated", None, norm, ablations)


def _without(
    plans: Sequence[tuple[int, float]], tails: Sequence[_Tail], reason: str
) -> list[Effect]:
    """The effects that there are none of, and why; of layers and norms of their directions."""
    changes = [("added", scale) for scale in _SCALES] + [("ablated", None)]
    return [
        Effect(layer, _STREAM, change, scale, norm, name, *_measure(tail), reason=reason)
        for layer, norm in plans
        for change, scale in changes
        for tail in tails
        for name in (SETS if tail.text is None else SETS[:2])
    ]


def _measure(tail: _Tail) -> tuple[str, str | None]:
    return ("log-perplexity", None) if tail.text is None else ("log-probability", tail.text)


@dataclass(frozen=True, eq=False)
class _Figures:
    """A measure on some texts: of the stream as it is, (n,), and of each run, (n_runs, n).

    −log probabilities, in nats; ``counts`` is what their sum is divided by: tokens or texts.
    """

    plain: NDArray[np.float64]
    runs: NDArray[np.float64]
    counts: NDArray[np.float64]
    sign: float

    def values(self, chosen: NDArray[np.int64] | slice = slice(None)) -> NDArray[np.float64]:
        """(1 + n_runs,) the measure over some texts, of the stream as it is first."""
        total = self.counts[chosen].sum()
        sums = np.concatenate([self.plain[None], self.runs])[:, chosen].sum(axis=1)
        return self.sign * sums / total

    def resampled(self, generator: np.random.Generator) -> NDArray[np.float64]:
        """(n_resampled,) the first run's effect, over texts drawn with replacement."""
        n = len(self.counts)
        drawn = generator.integers(0, n, (_N_RESAMPLED, n))
        off = (self.runs[0] - self.plain)[drawn].sum(axis=1)
        return self.sign * off / self.counts[drawn].sum(axis=1)


def _effects(
    plan: _Plan,
    texts: Sequence[_Tested],
    plain: Tensor,
    runs: Sequence[Tensor],
    tails: Sequence[_Tail],
    generator: np.random.Generator,
) -> list[Effect]:
    found = []
    for i, tail in enumerate(tails):
        figures: list[_Figures | str] = []
        for side in (0, 1):
            numbers = [k for k, t in enumerate(texts) if (t.side, t.tail) == (side, i)]
            counted = [k for k in numbers if texts[k].text.n_predicted]
            if not counted:
                figures.append(_why_none(SETS[side], bool(numbers)))
                continue
            n_predicted = [texts[k].text.n_predicted for k in counted]
            # The probability of a continuation is that of all its tokens together.
            counts = n_predicted if tail.text is None else [1] * len(counted)
            figures.append(
                _Figures(
                    plain[counted].numpy(),
                    torch.stack([run[counted] for run in runs]).numpy(),
                    np.array(counts, dtype=np.float64),
                    1.0 if tail.text is None else -1.0,
                )
            )
        found += _effects_of(plan, tail, figures, generator)
    return found


def _effects_of(
    plan: _Plan, tail: _Tail, figures: Sequence[_Figures | str], generator: np.random.Generator
) -> list[Effect]:
    head = (plan.layer, _STREAM, plan.change, plan.scale, plan.norm)
    found, drawn = [], []
    for name, each in zip(SETS, figures, strict=False):
        empty = Effect(*head, name, *_measure(tail))
        if isinstance(each, str):
            found.append(replace(empty, reason=each))
            continue
        drawn.append(each.resampled(generator))
        n_tokens = each.counts.sum() if tail.text is None else len(each.counts) * len(tail.ids)
        filled = replace(empty, n_prompts=len(each.counts), n_tokens=int(n_tokens))
        found.append(_filled(filled, each.values(), drawn[-1]))
    if tail.text is not None:
        return found
    empty = Effect(*head, "difference", *_measure(tail))
    reasons = [each for each in figures if isinstance(each, str)]
    if reasons:
        return [*found, replace(empty, reason=reasons[0])]
    positive, negative = [each for each in figures if not isinstance(each, str)]
    values = negative.values() - positive.values()
    filled = replace(
        empty,
        n_prompts=sum(each.n_prompts for each in found),
        n_tokens=sum(each.n_tokens for each in found),
    )
    return [*found, _filled(filled, values, drawn[1] - drawn[0])]


def _filled(effect: Effect, values: NDArray[np.float64], resampled: NDArray[np.float64]) -> Effect:
    """An effect with its figures: values of the stream as it is, of the change, of random ones."""
    if not np.isfinite(values).all():
        return replace(effect, reason="the model gives a probability that is not finite")
    low, high = (None, None)
    if effect.n_prompts > (2 if effect.set == "difference" else 1):
        low, high = (float(each) for each in np.quantile(resampled, (0.025, 0.975)))
    return replace(
        effect,
        plain=float(values[0]),
        value=float(values[1]),
        effect=float(values[1] - values[0]),
        effect_low=low,
        effect_high=high,
        random=tuple(float(each - values[0]) for each in values[2:]),
    )


def _why_none(name: str, has_prompts: bool) -> str:
    return (
        f"the held-out prompts of the {name} set have one token each: nothing predicts it"
        if has_prompts
        else f"no prompt of the {name} set could be held out"
    )
