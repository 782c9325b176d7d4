"""Tokens with a vector in the stream that is many times longer than the median, such as attention
sinks.

A model's first token, and sometimes a delimiter, has a few huge values that act as an attention
sink (Sun et al. 2024, "Massive Activations in Large Language Models"). They dominate averages over
tokens.
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
        position: its position in the sequence.
        reading: the row of the norms in which it is most extreme.
        norm: its norm there.
        times_usual: this norm divided by the median over tokens there; None if it isn't finite.
    """

    position: int
    reading: int
    norm: float | None
    times_usual: float | None

    def as_dict(self) -> dict[str, Any]:
        """Convert to JSON values."""
        return dict(vars(self))


def find_outliers(norms: Tensor, times_usual: float = TIMES_USUAL) -> list[int]:
    """Find positions with a norm above ``times_usual`` times the median over tokens, in order.

    The median is robust as long as fewer than half of the tokens are outliers. For an even number
    of tokens it is the lower of the middle two, so that the first of two can be an outlier. A
    non-finite norm is an outlier, and doesn't count towards the median.

    Args:
        norms: (T,), one norm per token; or (S, T) for S readings of the stream, such as its layers,
            where a token is an outlier if it is one in any reading.
        times_usual: the threshold, as a multiple of the median.
    """
    is_out = _times(norms)[1] > times_usual
    return [int(i) for i in is_out.any(dim=0).nonzero()[:, 0]]


def describe_outliers(norms: Tensor, times_usual: float = TIMES_USUAL) -> tuple[Outlier, ...]:
    """Like :func:`find_outliers`, with each outlier's size and reading."""
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
        raise ValueError(f"norms must be (T,) or (S, T), but these are {tuple(norms.shape)}")
    if not rows.numel():
        return rows, rows
    is_finite = rows.isfinite()
    usual = rows.where(is_finite, torch.nan).nanmedian(dim=1, keepdim=True).values
    # Where half of the norms are 0, whatever is above 0 stands out; 0 itself does not.
    times = (rows / usual).where(rows > 0, 0.0)
    return rows, times.where(is_finite, torch.inf).nan_to_num(nan=0.0, posinf=torch.inf)
