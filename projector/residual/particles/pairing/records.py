"""Records of the alignment of two prompts, and of where they diverge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Alignment:
    """Which tokens of two prompts are partners.

    Attributes:
        n_beginning: number of tokens of the shared beginning.
        n_end: number of tokens of the shared end.
        partners: (token of A, token of B), counted from 0: those of the shared beginning and end;
            and those in between, one by one, if both have equally many.
        first_unlike: the first position where the prompts differ, which is ``n_beginning``; None if
            they are equal.
    """

    n_beginning: int
    n_end: int
    partners: tuple[tuple[int, int], ...]
    first_unlike: int | None


@dataclass(frozen=True)
class FrameDifference:
    """The distance between two prompts in one frame, compared with sampled pairs.

    Attributes:
        frame: index of the frame; 0 is the embedding.
        layer: index of the layer; None for the embedding.
        distance: the mean over the compared tokens of ‖a − b‖ / ((‖a‖ + ‖b‖) / 2); 0 if they are
            equal, at most 2.
        null_median: the median over the sampled pairs; None if none were sampled.
        null_high: the 95th percentile over the sampled pairs.
        exceeds: whether ``distance`` is above ``null_high`` and above rounding error.
    """

    frame: int
    layer: int | None
    distance: float
    null_median: float | None
    null_high: float | None
    exceeds: bool | None

    def as_dict(self) -> dict[str, Any]:
        """Convert to JSON values."""
        return dict(vars(self))


@dataclass(frozen=True)
class Difference:
    """Where two prompts diverge: the first differing token, and the first layer that shows it.

    Attributes:
        position: the first position where the prompts differ, counted from 0.
        at: "end" if the tokens of the shared end are compared; "last" if there is no shared end,
            and the last tokens are compared.
        frame: the first frame with a larger distance than the sampled pairs; None if there is none,
            or too few were sampled.
        layer: its layer; None for the embedding, or if there is no such frame.
        distance: the distance in that frame, or in the last frame if there is none.
        null_median: median over the sampled pairs there.
        null_high: 95th percentile over the sampled pairs there.
        stays: whether every later frame's distance also exceeds it; None if ``frame`` is None.
        n_samples: number of sampled pairs of different continuations in the comparison; 0 if there
            are none, or too few.
        n_drawn: number of pairs drawn for them.
        n_equal: number of drawn pairs with equal continuations, which don't count.
        chance: the share of sampled pairs that exceed the 95th percentile of the other pairs in at
            least one frame: how often such a layer is found by chance.
        reason: why there is no frame; None if there is one.
        per_frame: every frame's distance, in order.
    """

    position: int
    at: str
    frame: int | None
    layer: int | None
    distance: float
    null_median: float | None
    null_high: float | None
    stays: bool | None
    n_samples: int
    n_drawn: int
    n_equal: int
    chance: float | None
    reason: str | None
    per_frame: tuple[FrameDifference, ...]

    def as_dict(self) -> dict[str, Any]:
        """Convert to JSON values."""
        return {**vars(self), "per_frame": [each.as_dict() for each in self.per_frame]}


@dataclass(frozen=True)
class Pair:
    """Two prompts compared with each other.

    Attributes:
        n_beginning: number of tokens of the shared beginning.
        n_end: number of tokens of the shared end.
        partners: (token of A, token of B); see :class:`Alignment`.
        first_unlike: the first position where the prompts differ; None if they are equal.
        causal_error: the largest over frames and tokens of the shared beginning of
            ‖a − b‖ / ‖a‖, which is within ``causal_allowed``; None if it has no meaning.
        causal_allowed: the largest error that rounding explains: 1e-5 in float32, 2e-2 in half
            precision.
        causal_tokens: number of tokens compared for it.
        causal_reason: why there is no ``causal_error``; None if there is one.
        first_difference: the first difference; None if the prompts are equal.
        reason: why there is no difference; None if there is one.
    """

    n_beginning: int
    n_end: int
    partners: tuple[tuple[int, int], ...]
    first_unlike: int | None
    causal_error: float | None = None
    causal_allowed: float | None = None
    causal_tokens: int = 0
    causal_reason: str | None = None
    first_difference: Difference | None = None
    reason: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Convert to JSON values: ``shared``, ``causal_zeros`` and ``first_difference`` of a
        report.
        """
        zeros = None
        if self.causal_error is not None:
            zeros = {
                "max_error": self.causal_error,
                "allowed": self.causal_allowed,
                "tokens": self.causal_tokens,
            }
        found = self.first_difference
        return {
            "shared": {"beginning": self.n_beginning, "end": self.n_end},
            "causal_zeros": zeros,
            "first_difference": None if found is None else found.as_dict(),
        }

    @property
    def reasons(self) -> dict[str, str]:
        """Figure of :meth:`as_dict`, or layer → reason why it is null."""
        found = {"causal_zeros": self.causal_reason, "first_difference": self.reason}
        if self.first_difference is not None:
            found["first_difference"] = self.first_difference.reason
        return {name: reason for name, reason in found.items() if reason is not None}
