"""The subject of an image of layers: one token of a prompt, or the mean over its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from projector.corpus.pieces import readable
from projector.residual.outliers import Outlier, describe_outliers

# Outliers that a note names; the others are counted.
_MOST_NAMED = 3


@dataclass(frozen=True, eq=False)
class Shown:
    """The states to draw.

    Attributes:
        vectors: (F, H) float32.
        words: their description, for a title.
        left_out: tokens with outlier norms, which the mean leaves out; () for a single token.
        note: describes the left-out tokens; "" if there are none.
    """

    vectors: Tensor
    words: str
    left_out: tuple[Outlier, ...] = ()
    note: str = ""


def choose_states(
    states: Tensor,
    tokens: Sequence[str],
    position: int | None,
    *,
    keep_outliers: bool = False,
    left_out: tuple[Outlier, ...] | None = None,
    prompt: str = "",
) -> Shown:
    """Choose the states of a token, or the mean over tokens without outliers.

    Args:
        states: (F, T, H) float32.
        tokens: texts of the T tokens.
        position: the token's position from 0; None for the mean.
        keep_outliers: whether the mean includes tokens with outlier norms.
        left_out: the outliers to leave out of the mean, if they were found in another model.
        prompt: name of the prompt if there are several, such as "B".
    """
    of = f" of {prompt}" if prompt else ""
    if position is not None:
        words = f"token {position:,} ‘{readable(tokens[position])}’{of}"
        return Shown(states[:, position], words)
    if left_out is None:
        left_out = () if keep_outliers else describe_outliers(states.norm(dim=-1))
    kept = torch.ones(len(tokens), dtype=torch.bool)
    kept[[each.position for each in left_out]] = False
    n_kept = int(kept.sum())
    return Shown(
        states[:, kept].double().mean(dim=1).float(),
        f"the mean of {n_kept:,} {'token' if n_kept == 1 else 'tokens'}{of}",
        left_out,
        _note(left_out, tokens),
    )


def _note(left_out: Sequence[Outlier], tokens: Sequence[str]) -> str:
    names = [f"{each.position:,} ‘{readable(tokens[each.position])}’" for each in left_out]
    if not names:
        return ""
    if len(names) == 1:
        return f"Token {names[0]} has an outlier norm; the mean leaves it out."
    if len(names) > _MOST_NAMED:
        names = [*names[:_MOST_NAMED], f"{len(names) - _MOST_NAMED:,} more"]
    *first, last = names
    return f"Tokens {', '.join(first)} and {last} have outlier norms; the mean leaves them out."
