"""Repeated random tokens, and the scores of attention patterns on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from projector.errors import SettingError, UserError
from projector.model.context import input_embedding, longest_sequence
from projector.model.prompting import beginning
from projector.residual.settings import check_numbers
from projector.residual.subject import Subject


@dataclass(frozen=True)
class Repeats:
    """Sequences of random tokens, each repeated once.

    Only the order of tokens determines the next token in the second half, so a head that finds it
    has found it by induction (Olsson et al. 2022, arXiv:2209.11895).

    Attributes:
        ids: (B, T) int64, the model's beginning-of-text tokens, if any, and 2·length tokens, all
            different within each half.
        n_before: number of beginning-of-text tokens.
        length: number of tokens in each half.
    """

    ids: Tensor
    n_before: int
    length: int

    @classmethod
    def draw(cls, subject: Subject, n_sequences: int, length: int, seed: int) -> Repeats:
        """Draw the tokens uniformly from the ordinary tokens of the vocabulary.

        Raises:
            SettingError: if there are too few sequences or tokens, or they exceed the model's
                context.
            UserError: if its vocabulary has too few tokens.
        """
        check_numbers(n_sequences=n_sequences, length=length, seed=seed)
        tokenizer = subject.loaded.tokenizer
        before = [] if tokenizer is None else beginning(tokenizer)
        most = longest_sequence(subject.model)
        if most is not None and len(before) + 2 * length > most:
            raise SettingError(
                "length",
                length,
                f"is too long for the model's context of {most:,} tokens",
                f"give {(most - len(before)) // 2:,} or less",
            )
        ordinary = _ordinary_tokens(subject)
        if len(ordinary) < length:
            raise UserError(
                f"the vocabulary has only {len(ordinary):,} ordinary tokens: give a length of "
                f"{len(ordinary):,} or less"
            )
        generator = torch.Generator().manual_seed(seed)
        rows = []
        for _ in range(n_sequences):
            half = ordinary[torch.randperm(len(ordinary), generator=generator)[:length]]
            rows.append(torch.cat([torch.tensor(before, dtype=torch.int64), half, half]))
        return cls(torch.stack(rows), len(before), length)

    def score(self, pattern: Tensor) -> Tensor:
        """Score how much heads attend to four kinds of positions, as means over tokens and
        sequences.

        In the order of :data:`projector.residual.heads.kinds.PATTERN_KINDS`: to the previous token
        (from all tokens after the second), to the same token in the first half and to the token
        after it (from tokens of the second half), and to the first position (from all tokens after
        the second).

        Args:
            pattern: (B, A, T, T), in any dtype.

        Returns:
            (4, A) float32 on the CPU.
        """
        start, n = self.n_before + self.length, self.length
        diagonals = {
            back: pattern.diagonal(-back, 2, 3).float() for back in (1, n, n - 1) if back > 0
        }
        scores = [
            # The diagonal that is `back` below the main one begins at query `back`.
            diagonals[1][..., 1:].mean((0, 2)),
            diagonals[n][..., start - n :].mean((0, 2)),
            diagonals[n - 1][..., start - n + 1 :].mean((0, 2)),
            pattern[:, :, 2:, 0].float().mean((0, 2)),
        ]
        return torch.stack(scores).cpu()


def _ordinary_tokens(subject: Subject) -> Tensor:
    """(n,) ids of tokens that are no control tokens; of all where there is no tokenizer."""
    table: Any = input_embedding(subject.model)
    n_rows = int(table.weight.shape[0])
    if subject.loaded.tokenizer is None:
        return torch.arange(n_rows)
    pieces = subject.pieces()
    ids = pieces.piece_ids[~pieces.piece_special]
    return ids[ids < n_rows]
