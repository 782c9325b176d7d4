"""Compare two prompts: check states that must be equal, and find where they diverge."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from projector.errors import UserError, check_seed
from projector.progress import Progress, Silent
from projector.residual.contributions import allowed_error
from projector.residual.particles.pairing.aligning import align
from projector.residual.particles.pairing.cost import (
    FEWEST_PAIRS,
    check_pairs,
    choose_pairs,
    count_weights,
)
from projector.residual.particles.pairing.distances import mean_distances
from projector.residual.particles.pairing.records import (
    Alignment,
    Difference,
    FrameDifference,
    Pair,
)
from projector.residual.particles.pairing.sampling import (
    Sampled,
    sample_distances,
    why_not_sampled,
)
from projector.residual.subject import Subject

__all__ = ["causal_error", "compare", "find_difference"]

_HIGH = 0.95
_TINY = 1e-30


def compare(
    subject: Subject,
    ids_a: Sequence[int],
    ids_b: Sequence[int],
    states_a: Tensor,
    states_b: Tensor,
    *,
    seed: int = 0,
    n_pairs: int | None = None,
    progress: Progress | None = None,
) -> Pair:
    """Align two prompts, assert that a causal model's states are equal before the first difference,
    and find the first layer with a larger distance than pairs of continuations sampled from the
    model.

    Args:
        ids_a: token ids of the first prompt.
        ids_b: token ids of the second prompt.
        states_a: (F, T, H), the embedding and the output of each layer, F = layers + 1; both
            prompts' from one batch.
        states_b: the states of the second prompt.
        seed: seed of the continuations.
        n_pairs: number of pairs of different continuations; 0 for no pairs, None for as many as
            take seconds, see :func:`choose_pairs`.

    Raises:
        SettingError: on ``seed`` or ``n_pairs``.
        UserError: if a causal model's states differ before the first differing token by more than
            rounding explains, or aren't finite, with the layer, the token and the difference.
        ValueError: if the states don't fit the model and the prompts.
    """
    check_seed("seed", seed)
    check_pairs("n_pairs", n_pairs)
    n_frames = len(subject.architecture.blocks) + 1
    for ids, states in ((ids_a, states_a), (ids_b, states_b)):
        if tuple(states.shape[:2]) != (n_frames, len(ids)):
            raise ValueError(
                f"states must have {n_frames} frames and {len(ids)} tokens, but these are "
                f"{tuple(states.shape)}"
            )
        _check_finite(states)
    shared = align(ids_a, ids_b)
    allowed = _allowed(subject)
    error, causal_reason = None, _why_no_zeros(subject, shared)
    if causal_reason is None:
        n = shared.n_beginning
        error = causal_error(states_a[:, :n], states_b[:, :n], allowed)
    difference: Difference | None = None
    if shared.first_unlike is not None:
        sampled, reason = _sample(
            subject, ids_a, ids_b, shared, n_pairs=n_pairs, seed=seed, progress=progress or Silent()
        )
        n_read = shared.n_end or 1
        distances = mean_distances(states_a[:, -n_read:], states_b[:, -n_read:])
        difference = find_difference(distances, sampled, shared, floor=allowed, reason=reason)
    return Pair(
        shared.n_beginning,
        shared.n_end,
        shared.partners,
        shared.first_unlike,
        causal_error=error,
        causal_allowed=None if error is None else allowed,
        causal_tokens=0 if error is None else shared.n_beginning,
        causal_reason=causal_reason,
        first_difference=difference,
        reason="the prompts are equal" if difference is None else None,
    )


def _sample(
    subject: Subject,
    ids_a: Sequence[int],
    ids_b: Sequence[int],
    shared: Alignment,
    *,
    n_pairs: int | None,
    seed: int,
    progress: Progress,
) -> tuple[Sampled | None, str | None]:
    """Pairs of continuations; and why no layer can be named beside them."""
    reason = why_not_sampled(subject, shared)
    if reason is not None:
        return None, reason
    n_weights, lengths = count_weights(subject.architecture), (len(ids_a), len(ids_b))
    n_chosen, reason = choose_pairs(n_weights, shared, *lengths, n_pairs)
    if reason is not None:
        return None, reason
    sampled = sample_distances(
        subject, ids_a, ids_b, shared, n_pairs=n_chosen, seed=seed, progress=progress
    )
    if len(sampled.distances) < FEWEST_PAIRS:
        reason = (
            f"the model samples the same continuation in {sampled.n_equal:,} of "
            f"{sampled.n_drawn:,} pairs, but {FEWEST_PAIRS} different pairs are needed"
        )
    return sampled, reason


def causal_error(before_a: Tensor, before_b: Tensor, allowed: float) -> float:
    """The largest ‖a − b‖ / ‖a‖ over the tokens before the first differing token.

    Args:
        before_a: (F, n, H), states of the shared beginning, n ≥ 1.
        before_b: (F, n, H).
        allowed: the largest error that rounding explains.

    Raises:
        UserError: if it is larger, with the layer, the token and the error.
    """
    a, b = before_a.double(), before_b.double()
    size = torch.linalg.vector_norm(a, dim=-1).clamp_min(_TINY)
    errors = torch.linalg.vector_norm(a - b, dim=-1) / size
    if (errors > allowed).any():
        # The first frame where it shows is the one to look at, and the token furthest off there.
        frame = int((errors > allowed).any(dim=1).nonzero()[0, 0])
        token = int(errors[frame].argmax())
        raise UserError(
            "the states of the two prompts differ before their first differing token: in "
            f"{_frame_name(frame)}, at token {token}, by {float(errors[frame, token]):.1e} of "
            f"the state, and rounding explains at most {allowed:.0e}; the model isn't causal, or "
            "padding changes what it computes"
        )
    return float(errors.max())


def find_difference(
    distances: Tensor,
    sampled: Sampled | None,
    shared: Alignment,
    *,
    floor: float = 0.0,
    reason: str | None = None,
) -> Difference:
    """Find the first frame with a larger distance between two prompts than between sampled pairs.

    Args:
        distances: (F,), distances of the prompts.
        sampled: the sampled pairs; None if nothing was sampled.
        shared: the alignment of the prompts.
        floor: the largest distance that rounding explains.
        reason: why there can be no such layer: no pairs were sampled, or too few.
    """
    assert shared.first_unlike is not None
    null = None if sampled is None or reason is not None else sampled.distances
    median = high = None
    if null is not None:
        median, high = null.quantile(0.5, dim=0), null.quantile(_HIGH, dim=0)
    rows = []
    for frame, distance in enumerate(distances.tolist()):
        exceeds = None if high is None else distance > max(float(high[frame]), floor)
        rows.append(
            FrameDifference(
                frame,
                frame - 1 if frame else None,
                distance,
                None if median is None else float(median[frame]),
                None if high is None else float(high[frame]),
                exceeds,
            )
        )
    above = [row for row in rows if row.exceeds]
    if null is not None and not above:
        reason = "no layer's distance exceeds the 95th percentile of the sampled pairs"
    told = above[0] if above else rows[-1]
    return Difference(
        position=shared.first_unlike,
        at="end" if shared.n_end else "last",
        frame=told.frame if above else None,
        layer=told.layer if above else None,
        distance=told.distance,
        null_median=told.null_median,
        null_high=told.null_high,
        stays=all(row.exceeds for row in rows[told.frame :]) if above else None,
        n_samples=0 if null is None else len(null),
        n_drawn=0 if sampled is None else sampled.n_drawn,
        n_equal=0 if sampled is None else sampled.n_equal,
        chance=None if null is None else _chance(null, floor),
        reason=reason,
        per_frame=tuple(rows),
    )


def _chance(null: Tensor, floor: float) -> float:
    """The share of sampled pairs that exceed the others' 95th percentile in at least one frame."""
    n_found = 0
    for i in range(len(null)):
        others = torch.cat([null[:i], null[i + 1 :]])
        n_found += bool((null[i] > others.quantile(_HIGH, dim=0).clamp_min(floor)).any())
    return n_found / len(null)


def _allowed(subject: Subject) -> float:
    """The most that rounding explains: of the coarsest type among the model's weights."""
    types = {each.dtype for each in subject.model.parameters() if each.is_floating_point()}
    return max(map(allowed_error, types), default=allowed_error(torch.float32))


def _why_no_zeros(subject: Subject, shared: Alignment) -> str | None:
    """Why states before the first differing token need not be equal, or there are none."""
    if not subject.architecture.is_causal:
        return "the model is an encoder: every token attends to the whole prompt"
    if not shared.n_beginning:
        return "the prompts differ from their first token on"
    return None


def _check_finite(states: Tensor) -> None:
    is_finite = states.isfinite().all(dim=-1)
    if not bool(is_finite.all()):
        frame, token = (int(i) for i in (~is_finite).nonzero()[0])
        raise UserError(
            f"a state is not finite: in {_frame_name(frame)}, at token {token}; choose float32",
            setting="dtype",
        )


def _frame_name(frame: int) -> str:
    return f"layer {frame - 1}" if frame else "the embedding"
