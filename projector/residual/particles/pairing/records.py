"""What two prompts share, and where they part, as results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Alignment:
    """Which tokens of two prompts are partners.

    Attributes:
        n_beginning: how many tokens both begin with.
        n_end: how many tokens behind it both end with.
        partners: (token of A, token of B), counted from 0: those of the shared beginning and end;
            and those between, one by one, where both have as many there.
        first_unlike: the first position where the prompts differ, which is ``n_beginning``; None
            if they are equal.
    """

    n_beginning: int
    n_end: int
    partners: tuple[tuple[int, int], ...]
    first_unlike: int | None


@dataclass(frozen=True)
class FrameDifference:
    """How far two prompts are apart in one frame, beside sampled pairs.

    Attributes:
        frame: counted from 0, which is the embedding.
        layer: None for the embedding.
        distance: the mean over the tokens compared of ‖a − b‖ / ((‖a‖ + ‖b‖) / 2); 0 if they
            are equal, 2 at most.
        null_median: the median of the same over the sampled pairs; None if none were sampled.
        null_high: its 95th percentile.
        exceeds: whether ``distance`` is above it, and above what rounding explains.
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
    """Where two prompts part: the first unlike token, and the first layer that tells.

    Attributes:
        position: the first position where the prompts differ, counted from 0.
        at: "end", where the tokens of the shared end are compared; "last", where there is none, so
            that the last token of each is.
        frame: the first frame whose distance exceeds that of the sampled pairs; None if none
            does, or too few were sampled.
        layer: its layer; None for the embedding, and where there is no such frame.
        distance: the distance in that frame; where there is none, in the last frame.
        null_median: of the sampled pairs there.
        null_high: their 95th percentile there.
        stays: whether every later frame's distance exceeds it too; None if ``frame`` is.
        n_samples: how many sampled pairs of unlike continuations the distance is compared with; 0
            if there are none, or too few to compare.
        n_drawn: how many pairs were drawn for them.
        n_equal: how many of those are two equal continuations, which don't count.
        chance: the share of sampled pairs that exceed the 95th percentile of the others in at least
            one frame: how often such a layer is found where there is nothing to find.
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
    """Two prompts beside each other.

    Attributes:
        n_beginning: how many tokens both begin with.
        n_end: how many tokens behind it both end with.
        partners: (token of A, token of B), see :class:`Alignment`.
        first_unlike: the first position where the prompts differ; None if they are equal.
        causal_error: the largest over frames and tokens of the shared beginning of
            ‖a − b‖ / ‖a‖, which is within ``causal_allowed``; None if it has no meaning.
        causal_allowed: the most that rounding explains: 1e-5 in float32, 2e-2 in half precision.
        causal_tokens: how many tokens were compared for it.
        causal_reason: why there is no ``causal_error``; None if there is one.
        first_difference: None if the prompts are equal.
        reason: why there is none; None if there is one.
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
        """For JSON: ``shared``, ``causal_zeros`` and ``first_difference`` of a report."""
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
        """Why a figure of :meth:`as_dict` is null, by its name; also of a layer that is."""
        found = {"causal_zeros": self.causal_reason, "first_difference": self.reason}
        if self.first_difference is not None:
            found["first_difference"] = self.first_difference.reason
        return {name: reason for name, reason in found.items() if reason is not None}
