"""Choose the number of sampled pairs of continuations by their cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from projector.errors import SettingError, check_least, number_text
from projector.residual.particles.pairing.records import Alignment

if TYPE_CHECKING:
    from projector.model.architecture.records import Architecture

__all__ = [
    "FEWEST_PAIRS",
    "check_pairs",
    "choose_pairs",
    "count_weights",
    "pair_operations",
    "time_words",
]

# With fewer pairs, the 95th percentile would be little else than the largest.
FEWEST_PAIRS = 20
# What is sampled by default, and what can be asked for.
_USUAL_PAIRS, _MOST_PAIRS = 100, 1000
# What the pairs may cost by default, and what a core that others use too works out in a second, in
# float32.
_OPERATIONS = 5 * 10**11
_OPERATIONS_PER_S = 2.5 * 10**10
_LONG_S = 120


def check_pairs(setting: str, n_pairs: int | None) -> None:
    """Raise a SettingError unless this is a valid number of pairs: 0, or 20 to 1,000; None is
    accepted.
    """
    if n_pairs is None or n_pairs == 0:
        return
    if 0 < n_pairs < FEWEST_PAIRS:
        raise SettingError(
            setting,
            n_pairs,
            "is too small for a 95th percentile",
            f"give {FEWEST_PAIRS} or more, or 0 for no pairs",
        )
    check_least(setting, n_pairs, 0)
    if n_pairs > _MOST_PAIRS:
        raise SettingError(
            setting, n_pairs, "is too large", f"give {number_text(_MOST_PAIRS)} or less"
        )


def count_weights(architecture: Architecture) -> int:
    """The number of weights in the model's layers."""
    return sum(each.numel() for block in architecture.blocks for each in block.module.parameters())


def pair_operations(n_weights: int, shared: Alignment, n_a: int, n_b: int) -> int:
    """The number of operations for sampling and running one pair, with cached keys and values of
    the shared beginning.

    Args:
        n_weights: see :func:`count_weights`.
        shared: the alignment of the prompts.
        n_a: number of tokens of the first prompt; ``n_b``: of the second.
    """
    n_between = max(n_a, n_b) - shared.n_beginning - shared.n_end
    n_run = 1 + n_between + shared.n_end
    return 2 * max(n_weights, 1) * 2 * (n_run + max(n_between - 1, 0))


def choose_pairs(
    n_weights: int, shared: Alignment, n_a: int, n_b: int, n_pairs: int | None
) -> tuple[int, str | None]:
    """Choose the number of pairs to sample, and give the reason if it is 0.

    The default is as many as take seconds on one core, at most 100; and 0 if 20 would take longer.

    Args:
        n_weights, shared, n_a, n_b: as for :func:`pair_operations`.
        n_pairs: the requested number; None for the default.
    """
    if n_pairs is not None:
        return n_pairs, None if n_pairs else "no pairs of continuations were requested"
    each = pair_operations(n_weights, shared, n_a, n_b)
    n_pairs = min(_USUAL_PAIRS, _OPERATIONS // each)
    if n_pairs >= FEWEST_PAIRS:
        return n_pairs, None
    seconds = time_words(FEWEST_PAIRS * each)
    return 0, (
        f"sampling {FEWEST_PAIRS} pairs of continuations would take about {seconds} on one core, "
        "so it runs only if a number of pairs is set"
    )


def time_words(operations: int) -> str:
    """The approximate time on one core: ``40 s``, ``12 minutes``."""
    seconds = operations / _OPERATIONS_PER_S
    if seconds < _LONG_S:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:,.0f} minutes"
