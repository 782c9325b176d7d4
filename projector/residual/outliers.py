"""Tokens whose vector in the stream is many times as long as is usual: attention sinks and others.

A model's first token, and at times a delimiter, carries a few huge numbers that attention uses as a
place to rest (Sun et al. 2024, "Massive Activations in Large Language Models"). Averages over
tokens that include them are about them alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# In the bundled model and in SmolLM2-135M ordinary tokens stay below 1.7 times their layer's
# median, and the first token reaches 7 and 190 times.
TIMES_USUAL = 4.0


@dataclass(frozen=True)
class Outlier:
    """A token with an outlying norm.

    Attributes:
        position: its place in the sequence.
        reading: the row of the norms in which it is furthest out.
        norm: its norm there.
        times_usual: that norm divided by the median over tokens there; None if it is not finite.
    """

    position: int
    reading: int
    norm: float | None
    times_usual: float | None

    def as_dict(self) -> dict[str, Any]:
        """Convert to JSON values."""
        return dict(vars(self))


def find_outliers(norms: Tensor, times_usual: float = TIMES_USUAL) -> list[int]:
    """Positions whose norm exceeds ``times_usual`` times the median over tokens, in order.

    The median stays where it is as long as fewer than half of the tokens are outliers; of an even
    number of tokens it is the lower of the middle two, so that the first of two can be an outlier.
    A norm that is not finite is an outlier, and doesn't count towards the median.

    Args:
        norms: (T,) one norm a token; or (S, T) for S readings of the stream, such as its layers: a
            token is an outlier where it is one in any of them.
        times_usual: the least that counts as many times.
    """
    is_out = _times(norms)[1] > times_usual
    return [int(i) for i in is_out.any(dim=0).nonzero()[:, 0]]


def describe_outliers(norms: Tensor, times_usual: float = TIMES_USUAL) -> tuple[Outlier, ...]:
    """What :func:`find_outliers` finds, with how far out each is and in which reading."""
    rows, times = _times(norms)
    found = []
    for position in find_outliers(norms, times_usual):
        reading = int(times[:, position].argmax())
        norm, share = float(rows[reading, position]), float(times[reading, position])
        is_finite = bool(torch.isfinite(rows[reading, position]))
        found.append(
            Outlier(
                position,
                reading,
                norm if is_finite else None,
                share if is_finite and share < float("inf") else None,
            )
        )
    return tuple(found)


def _times(norms: Tensor) -> tuple[Tensor, Tensor]:
    """The norms (S, T), and each divided by its row's median; +inf where a norm is not finite."""
    rows = torch.atleast_2d(norms.detach().double())
    if rows.ndim != 2:
        raise ValueError(f"norms are (T,) or (S, T), and these are {tuple(norms.shape)}")
    if not rows.numel():
        return rows, rows
    is_finite = rows.isfinite()
    usual = rows.where(is_finite, torch.nan).nanmedian(dim=1, keepdim=True).values
    # Where half of the norms are 0, whatever is above 0 stands out; 0 itself does not.
    times = (rows / usual).where(rows > 0, 0.0)
    return rows, times.where(is_finite, torch.inf).nan_to_num(nan=0.0, posinf=torch.inf)
