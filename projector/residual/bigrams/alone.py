"""A model run on single tokens, with nothing that comes from others or from their place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from projector.model.capture import Tap, capture
from projector.model.intervention import Replacement, intervene
from projector.model.loading import input_device

if TYPE_CHECKING:
    from projector.residual.subject import Subject


@torch.no_grad()
def token_streams(subject: Subject, ids: Tensor) -> Tensor:
    """The stream of single tokens before the first block, (n, H): what their embedding is there.

    Positional embeddings that are added to the stream are left out.

    Args:
        ids: (n,) int64.
    """
    return run_alone(subject, ids, attention_free=False)[0]


def run_alone(subject: Subject, ids: Tensor, *, attention_free: bool) -> list[Tensor]:
    """The stream of single tokens, (n, H), before the first block; and behind the last one, with
    nothing written by attention, if that is asked for."""
    blocks = subject.architecture.blocks
    taps = {"pre": blocks[0].taps["resid_pre"]}
    silent = list(positions(subject))
    if attention_free:
        taps["post"] = blocks[-1].taps["resid_post"]
        silent += [block.taps["attn_out"] for block in blocks if "attn_out" in block.taps]
    found: dict[str, Tensor] = {}

    def keep(key: str, tensor: Tensor) -> None:
        found[key] = tensor.detach().reshape(len(ids), -1).clone()

    column = ids.reshape(-1, 1).to(input_device(subject.model))
    width = subject.architecture.n_hidden
    with (
        torch.no_grad(),
        intervene([Replacement.zero(tap, range(width)) for tap in silent]),
        capture(taps, keep, then_stop=True),
    ):
        subject.model(input_ids=column, attention_mask=torch.ones_like(column))
    return [found[key] for key in taps]


def positions(subject: Subject) -> list[Tap]:
    """Where positional embeddings are added to the stream."""
    sources = subject.layout.embedding.sources
    return [source.tap for source in sources if source.name == "position"]
