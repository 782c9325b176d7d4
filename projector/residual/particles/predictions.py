"""Predictions of the logit lens for every token in every frame."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from projector.errors import UserError
from projector.model.loading import input_device
from projector.progress import Progress, Silent
from projector.residual.logits.highest import find_highest
from projector.residual.particles.records import Prediction, Predictions
from projector.residual.readings.measuring import n_at_once
from projector.residual.subject import Subject

__all__ = ["MOST_TOKENS", "predict_tokens"]

# Of a longer prompt the last ones are read: a reading costs one product with the head.
MOST_TOKENS = 512


@torch.no_grad()
def predict_tokens(
    subject: Subject,
    states: Sequence[Tensor],
    *,
    most_tokens: int = MOST_TOKENS,
    progress: Progress | None = None,
) -> Predictions:
    """Find the most probable next token in every frame, with the model's own norm and head.

    Source: nostalgebraist 2020, "interpreting GPT: the logit lens". The last frame has the model's
    own prediction.

    Args:
        states: (F, T_i, H) for each prompt, states of the stream.
        most_tokens: number of tokens of a prompt to read, from the end; earlier tokens have None.

    Raises:
        UserError: for an encoder or a model without a head, or if a logit is not finite.
    """
    progress, readout = progress or Silent(), subject.readout
    # Where weights are offloaded, the model's own hooks take a stream to where they are needed.
    device, dtype = input_device(subject.model), next(readout.head.parameters()).dtype
    size = n_at_once(readout.n_vocabulary)
    progress.begin("Reading predictions", sum(each.shape[0] for each in states), "frames")
    read: list[list[tuple[list[int], list[float]]]] = []
    for each in states:
        rows = []
        for frame in each[:, -most_tokens:]:
            ids: list[int] = []
            shares: list[float] = []
            for part in frame.split(size):
                logits = readout.logits(part.to(device, dtype))
                highest, top = find_highest(logits, 1)
                if not bool(highest.isfinite().all()):
                    raise UserError("its logits are not finite: load the model in float32")
                ids += top[:, 0].tolist()
                shares += (highest[:, 0] - logits.logsumexp(dim=-1)).exp().tolist()
            rows.append((ids, shares))
            progress.advance(1)
        read.append(rows)
    progress.end()
    known = sorted({i for rows in read for ids, _ in rows for i in ids})
    pieces = subject.pieces(known)
    return tuple(
        tuple(
            (
                *[None] * (each.shape[1] - len(ids)),
                *(
                    Prediction(i, pieces.text(i), share)
                    for i, share in zip(ids, shares, strict=True)
                ),
            )
            for ids, shares in rows
        )
        for each, rows in zip(states, read, strict=True)
    )
