"""Results of the causal test of a direction, and the choice of test prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

# Of each set, the largest share and number of prompts that are held out.
_MOST_SHARE, _MOST_PROMPTS = 0.25, 32


class Sets(Protocol):
    """Two sets of prompts, as in :mod:`projector.residual.contrast.prompts`."""

    @property
    def name(self) -> str: ...
    @property
    def positive(self) -> tuple[str, ...]: ...
    @property
    def negative(self) -> tuple[str, ...]: ...
    @property
    def positive_name(self) -> str: ...
    @property
    def negative_name(self) -> str: ...
    @property
    def positive_groups(self) -> tuple[int, ...]: ...
    @property
    def negative_groups(self) -> tuple[int, ...]: ...
    @property
    def sha256(self) -> str: ...


@dataclass(frozen=True)
class Effect:
    """The effect of one change to the stream on one set's held-out prompts.

    Attributes:
        layer, stream: where the direction was measured, and the stream is changed.
        change: ``added`` or ``ablated`` (projected out), at every position.
        scale: factor of the added difference of means; None if it was ablated.
        norm: ‖difference of means‖, also the norm of the random directions.
        set: ``positive``, ``negative``; or ``difference``, the negative set's log-perplexity minus
            the positive set's. An effect above 0 means that the change favours the positive set.
        measure: ``log-perplexity``, in nats per token; or ``log-probability`` of ``continuation``
            after each prompt, in nats.
        continuation: the text to measure the probability of; None for perplexity.
        plain: the measure with the unchanged stream. value: the measure with the change.
        effect: ``value`` − ``plain``. effect_low, effect_high: its 95 % bootstrap interval over
            groups of prompts, with the same draws for both sets; None for fewer than two groups.
        random: the effect of each uniform random direction.
        n_prompts, n_tokens: number of prompts and tokens in the measure.
        reason: why there is no effect; None if there is one.
        permuted: the effect of each direction of permuted labels: the difference of means after the
            prompts' deviations from their set's mean are assigned to the sets at random, scaled to
            the same norm.
        n_groups: number of groups of the prompts.
    """

    layer: int
    stream: str
    change: str
    scale: float | None
    norm: float
    set: str
    measure: str
    continuation: str | None = None
    plain: float | None = None
    value: float | None = None
    effect: float | None = None
    effect_low: float | None = None
    effect_high: float | None = None
    random: tuple[float, ...] = ()
    n_prompts: int = 0
    n_tokens: int = 0
    reason: str | None = None
    permuted: tuple[float, ...] = ()
    n_groups: int = 0

    @property
    def random_mean(self) -> float | None:
        """The mean effect of the random directions."""
        return float(np.mean(self.random)) if self.random else None

    @property
    def exceeds_random(self) -> bool | None:
        """Whether the effect is larger in size than that of every random direction.

        This compares it with directions of the whole space. The stream varies along few of them,
        and a random direction lies almost entirely outside these, so projecting it out changes
        little. Any direction along which prompts differ may have a larger effect, even if it is
        unrelated to the sets; ``exceeds_permuted`` compares with those.
        """
        return self._exceeds(self.random)

    @property
    def permuted_mean(self) -> float | None:
        """The mean effect of the directions of permuted labels."""
        return float(np.mean(self.permuted)) if self.permuted else None

    @property
    def exceeds_permuted(self) -> bool | None:
        """Whether the effect is larger in size than that of every direction of permuted labels.

        They lie in directions along which the stream varies between prompts, but are unrelated to
        the sets.
        """
        return self._exceeds(self.permuted)

    def _exceeds(self, others: Sequence[float]) -> bool | None:
        if self.effect is None or not others:
            return None
        return bool(abs(self.effect) > max(abs(each) for each in others))

    def as_dict(self) -> dict[str, Any]:
        """Convert to JSON values."""
        return asdict(self) | {
            "random": list(self.random),
            "random_mean": self.random_mean,
            "exceeds_random": self.exceeds_random,
            "permuted": list(self.permuted),
            "permuted_mean": self.permuted_mean,
            "exceeds_permuted": self.exceeds_permuted,
        }


@dataclass(frozen=True)
class Split:
    """Indices of the test prompts, and of the prompts that the direction is fitted on, by set."""

    tested_positive: tuple[int, ...]
    tested_negative: tuple[int, ...]
    fit_positive: tuple[int, ...]
    fit_negative: tuple[int, ...]


def split_prompts(
    sets: Sets,
    n_tokens: tuple[Sequence[int], Sequence[int]],
    *,
    n_prompts: int,
    max_tokens: int,
    seed: int,
) -> Split:
    """Hold out prompts in whole groups: at most a quarter of each set, and at most 32.

    Args:
        n_tokens: number of tokens to test of each prompt, for the positive and the negative set.
        n_prompts: largest number of held-out prompts over both sets.
        max_tokens: largest number of tokens to test over both sets; a set is tested on at least one
            prompt of any length.
    """
    groups = (sets.positive_groups, sets.negative_groups)
    limits = [min(int(_MOST_SHARE * len(each)), _MOST_PROMPTS, n_prompts // 2) for each in groups]
    chosen: tuple[list[int], list[int]] = ([], [])
    used = [0, 0]
    every = sorted({*groups[0], *groups[1]})
    members: dict[int, tuple[list[int], list[int]]] = {group: ([], []) for group in every}
    for side in (0, 1):
        for number, group in enumerate(groups[side]):
            members[group][side].append(number)
    for i in np.random.default_rng(seed).permutation(len(every)):
        both = members[every[i]]
        tokens = [sum(n_tokens[side][k] for k in both[side]) for side in (0, 1)]
        fits = all(
            len(chosen[side]) + len(both[side]) <= limits[side]
            and (not both[side] or not used[side] or used[side] + tokens[side] <= max_tokens // 2)
            for side in (0, 1)
        )
        if fits:
            for side in (0, 1):
                chosen[side].extend(both[side])
                used[side] += tokens[side]
    tested = [tuple(sorted(each)) for each in chosen]
    fit = [
        tuple(k for k in range(len(groups[side])) if k not in set(chosen[side])) for side in (0, 1)
    ]
    return Split(tested[0], tested[1], fit[0], fit[1])
