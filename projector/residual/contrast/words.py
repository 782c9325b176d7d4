"""The growth of variance in a sentence, the same in the command and in a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from projector.residual.flow.words import number

__all__ = ["growth_sentence"]


def growth_sentence(blocks: Sequence[Mapping[str, Any]]) -> str:
    """The share of covariance in the growth over all blocks; "" if unknown.

    Var after the last block − Var before the first = Σ Var(update) + Σ 2 Cov(pre, update).

    Args:
        blocks: one :meth:`~projector.residual.contrast.growth.Growth.as_dict` per block of a model,
            in order; the mean of both sets.
    """
    parts = [_gain_words("Over all layers", blocks, is_mean=True)]
    if len(blocks) > 1 and parts[0]:
        parts.append(_gain_words(f"After layer {blocks[0].get('layer', 0)}", blocks[1:]))
    return " ".join(part for part in parts if part)


def _gain_words(over: str, blocks: Sequence[Mapping[str, Any]], *, is_mean: bool = False) -> str:
    """A sentence of some blocks in a row."""
    gains = [block.get("gain_covariance") for block in blocks]
    start = blocks[0].get("variance_pre") if blocks else None
    end = blocks[-1].get("variance_post") if blocks else None
    covariance = sum(gain for gain in gains if gain is not None)
    if start is None or end is None or None in gains:
        return ""
    over += ", the mean variance goes" if is_mean else ", it goes"
    over += f" from {number(start, '.3g')} to {number(end, '.3g')}"
    if not end > start:
        return f"{over}: it does not grow."
    share = covariance / (end - start)
    return (
        f"{over}; {_percent(share)} of this growth is covariance with the stream, "
        f"and {_percent(1 - share)} the updates’ own variance."
    )


def _percent(share: float) -> str:
    return f"{number(100 * share, '.0f')} %"
