"""Align two prompts on their shared beginning and end."""

from __future__ import annotations

from collections.abc import Sequence

from projector.residual.particles.pairing.records import Alignment


def align(ids_a: Sequence[int], ids_b: Sequence[int]) -> Alignment:
    """Find which tokens of two prompts are partners.

    The shared beginning is as long as possible, followed by the shared end; a token is never in
    both. Tokens in between are partners one by one if both prompts have equally many: a changed
    word is the partner of its replacement.

    Args:
        ids_a: token ids of the first prompt.
        ids_b: token ids of the second prompt.
    """
    shorter = min(len(ids_a), len(ids_b))
    n_beginning = 0
    while n_beginning < shorter and ids_a[n_beginning] == ids_b[n_beginning]:
        n_beginning += 1
    most = shorter - n_beginning
    n_end = 0
    while n_end < most and ids_a[-1 - n_end] == ids_b[-1 - n_end]:
        n_end += 1
    partners = [(i, i) for i in range(n_beginning)]
    if len(ids_a) == len(ids_b):
        partners += [(i, i) for i in range(n_beginning, len(ids_a) - n_end)]
    partners += [(len(ids_a) - n, len(ids_b) - n) for n in range(n_end, 0, -1)]
    is_equal = n_beginning == len(ids_a) == len(ids_b)
    return Alignment(n_beginning, n_end, tuple(partners), None if is_equal else n_beginning)
