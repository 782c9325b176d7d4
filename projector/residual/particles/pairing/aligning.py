"""Two prompts aligned on the tokens that both begin and end with."""

from __future__ import annotations

from collections.abc import Sequence

from projector.residual.particles.pairing.records import Alignment


def align(ids_a: Sequence[int], ids_b: Sequence[int]) -> Alignment:
    """Which tokens of two prompts are partners.

    The beginning is as long as it can be, and the end what is left of it: a token is never in both.
    Tokens between the two are partners one by one where both prompts have as many there: a word
    that was changed is the partner of what it was changed to.

    Args:
        ids_a: token ids of the first prompt, as the model takes them.
        ids_b: of the second.
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
