"""Compute effects from the runs of a test: each set's figure with a change, compared with no
change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from projector.model.intervention import Intervention
from projector.residual.directions.records import Effect
from projector.residual.directions.running import Text
from projector.residual.sampling.bootstrap import resample_groups

SCALES = (1.0, -1.0)
# The third is the difference of the other two, of perplexity alone.
SETS = ("positive", "negative", "difference")
STREAM = "resid_post"
_N_RESAMPLED = 1000


@dataclass(frozen=True, eq=False)
class Tail:
    """A continuation and its tokens; None for perplexity."""

    text: str | None = None
    ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class Tested:
    """A text to run, with its set, its group and the index of its continuation."""

    text: Text
    side: int
    tail: int
    group: int


@dataclass(frozen=True)
class Plan:
    """One change: with the direction, then with random directions, then with those of permuted
    labels.
    """

    layer: int
    change: str
    scale: float | None
    norm: float
    runs: tuple[Intervention, ...]
    n_random: int

    def key(self, i: int) -> tuple[int, str, float | None, int]:
        """The key of run i; only the direction itself is added with both signs."""
        return (self.layer, self.change, None if i else self.scale, i)


def effects_without(
    plans: Sequence[tuple[int, float]], tails: Sequence[Tail], reason: str
) -> list[Effect]:
    """Effects without values, with the reason, for layers and the norms of their directions."""
    changes = [("added", scale) for scale in SCALES] + [("ablated", None)]
    return [
        Effect(layer, STREAM, change, scale, norm, name, *_measure(tail), reason=reason)
        for layer, norm in plans
        for change, scale in changes
        for tail in tails
        for name in (SETS if tail.text is None else SETS[:2])
    ]


@dataclass(frozen=True, eq=False)
class _Figures:
    """A measure on some texts: of the stream as it is, (n,), and of each run, (n_runs, n).

    −log probabilities, in nats; ``counts`` is what their sum is divided by: tokens or texts.
    ``weights`` (n_resampled, n) is how often each bootstrap sample holds a text, and ``groups``
    those that texts are of.
    """

    plain: NDArray[np.float64]
    runs: NDArray[np.float64]
    counts: NDArray[np.float64]
    weights: NDArray[np.float64]
    groups: frozenset[int]
    sign: float

    def values(self) -> NDArray[np.float64]:
        """(1 + n_runs,) the measure over the texts, of the stream as it is first."""
        sums = np.concatenate([self.plain[None], self.runs]).sum(axis=1)
        return self.sign * sums / self.counts.sum()

    def resampled(self) -> NDArray[np.float64]:
        """(n_resampled,) the first run's effect, over each bootstrap sample."""
        off = self.weights @ (self.runs[0] - self.plain)
        return self.sign * off / (self.weights @ self.counts)


def effects_of(
    plan: Plan,
    texts: Sequence[Tested],
    plain: Tensor,
    runs: Sequence[Tensor],
    tails: Sequence[Tail],
    seed: int,
) -> list[Effect]:
    """Compute the effects of one change on both sets, for each continuation.

    Args:
        plain: (n_texts,) float64, −log probability of each text with the unchanged stream.
        runs: the same for each run of the plan.
        seed: seed of the bootstrap; equal seeds draw the same groups for every change.
    """
    found = []
    for i, tail in enumerate(tails):
        counted = [k for k, t in enumerate(texts) if t.tail == i and t.text.n_predicted]
        sides = np.array([texts[k].side for k in counted], dtype=np.int64)
        groups = np.array([texts[k].group for k in counted], dtype=np.int64)
        drawn = resample_groups(sides == 0, groups, _N_RESAMPLED, np.random.default_rng(seed))
        figures: list[_Figures | str] = []
        for side in (0, 1):
            own = [k for k in counted if texts[k].side == side]
            if not own:
                has_prompts = any((t.side, t.tail) == (side, i) for t in texts)
                figures.append(_why_none(SETS[side], has_prompts))
                continue
            n_predicted = [texts[k].text.n_predicted for k in own]
            # The probability of a continuation is that of all its tokens together.
            counts = n_predicted if tail.text is None else [1] * len(own)
            figures.append(
                _Figures(
                    plain[own].numpy(),
                    torch.stack([run[own] for run in runs]).numpy(),
                    np.array(counts, dtype=np.float64),
                    drawn[:, sides == side],
                    frozenset(groups[sides == side].tolist()),
                    1.0 if tail.text is None else -1.0,
                )
            )
        found += _effects_of_tail(plan, tail, figures)
    return found


def _effects_of_tail(plan: Plan, tail: Tail, figures: Sequence[_Figures | str]) -> list[Effect]:
    head = (plan.layer, STREAM, plan.change, plan.scale, plan.norm)
    found, drawn = [], []
    for name, each in zip(SETS, figures, strict=False):
        empty = Effect(*head, name, *_measure(tail))
        if isinstance(each, str):
            found.append(replace(empty, reason=each))
            continue
        drawn.append(each.resampled() if len(each.groups) > 1 else None)
        n_tokens = each.counts.sum() if tail.text is None else len(each.counts) * len(tail.ids)
        filled = replace(
            empty,
            n_prompts=len(each.counts),
            n_tokens=int(n_tokens),
            n_groups=len(each.groups),
        )
        found.append(_filled(filled, each.values(), drawn[-1], plan.n_random))
    if tail.text is not None:
        return found
    empty = Effect(*head, "difference", *_measure(tail))
    reasons = [each for each in figures if isinstance(each, str)]
    if reasons:
        return [*found, replace(empty, reason=reasons[0])]
    positive, negative = [each for each in figures if not isinstance(each, str)]
    filled = replace(
        empty,
        n_prompts=sum(each.n_prompts for each in found),
        n_tokens=sum(each.n_tokens for each in found),
        n_groups=len(positive.groups | negative.groups),
    )
    # The same groups are drawn for both, so what a group does to both sets cancels here too.
    both = None if drawn[0] is None or drawn[1] is None else drawn[1] - drawn[0]
    return [*found, _filled(filled, negative.values() - positive.values(), both, plan.n_random)]


def _filled(
    effect: Effect,
    values: NDArray[np.float64],
    resampled: NDArray[np.float64] | None,
    n_random: int,
) -> Effect:
    """An effect with its figures: values of the stream as it is, of the change, of random ones and
    of those of permuted labels."""
    if not np.isfinite(values).all():
        return replace(effect, reason="a probability is not finite")
    low, high = (None, None)
    if resampled is not None:
        low, high = (float(each) for each in np.quantile(resampled, (0.025, 0.975)))
    others = [float(each - values[0]) for each in values[2:]]
    return replace(
        effect,
        plain=float(values[0]),
        value=float(values[1]),
        effect=float(values[1] - values[0]),
        effect_low=low,
        effect_high=high,
        random=tuple(others[:n_random]),
        permuted=tuple(others[n_random:]),
    )


def _why_none(name: str, has_prompts: bool) -> str:
    return (
        f"the held-out prompts of the {name} set have one token each: nothing predicts it"
        if has_prompts
        else f"no prompt of the {name} set could be held out"
    )


def _measure(tail: Tail) -> tuple[str, str | None]:
    return ("log-perplexity", None) if tail.text is None else ("log-probability", tail.text)
