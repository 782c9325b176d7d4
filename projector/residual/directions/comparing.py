"""Effects from the runs of a test: each set's figure with a change, beside that without it."""

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

SCALES = (1.0, -1.0)
# The third is the difference of the other two, of perplexity alone.
SETS = ("positive", "negative", "difference")
STREAM = "resid_post"
_N_RESAMPLED = 1000


@dataclass(frozen=True, eq=False)
class Tail:
    """A continuation and its tokens; of perplexity, neither."""

    text: str | None = None
    ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class Tested:
    """A text that is run, the set it is of, and the number of its continuation."""

    text: Text
    side: int
    tail: int


@dataclass(frozen=True)
class Plan:
    """One change, by the direction and then by random ones."""

    layer: int
    change: str
    scale: float | None
    norm: float
    runs: tuple[Intervention, ...]

    def key(self, i: int) -> tuple[int, str, float | None, int]:
        """What the i-th run is told by: a random direction is added with one sign only."""
        return (self.layer, self.change, None if i else self.scale, i)


def effects_without(
    plans: Sequence[tuple[int, float]], tails: Sequence[Tail], reason: str
) -> list[Effect]:
    """The effects that there are none of, and why; of layers and norms of their directions."""
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


def effects_of(
    plan: Plan,
    texts: Sequence[Tested],
    plain: Tensor,
    runs: Sequence[Tensor],
    tails: Sequence[Tail],
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
        found += _effects_of_tail(plan, tail, figures, generator)
    return found


def _effects_of_tail(
    plan: Plan, tail: Tail, figures: Sequence[_Figures | str], generator: np.random.Generator
) -> list[Effect]:
    head = (plan.layer, STREAM, plan.change, plan.scale, plan.norm)
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


def _measure(tail: Tail) -> tuple[str, str | None]:
    return ("log-perplexity", None) if tail.text is None else ("log-probability", tail.text)
