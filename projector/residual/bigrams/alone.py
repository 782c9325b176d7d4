"""Run a model on single tokens, without context or positions."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from projector.model.capture import Tap, capture, evaluating
from projector.model.intervention import Replacement, intervene
from projector.model.loading import input_device

if TYPE_CHECKING:
    from projector.residual.subject import Subject

Key = TypeVar("Key", bound=Hashable)


def run_alone(subject: Subject, ids: Tensor) -> tuple[Tensor, Tensor]:
    """The streams of single tokens, (n, H) each: before the first block, and after the last block
    with attention writing nothing.

    Positional embeddings that are added to the stream are left out.

    Args:
        ids: (n,) int64.
    """
    blocks = subject.architecture.blocks
    taps = {"pre": blocks[0].taps["resid_pre"], "post": blocks[-1].taps["resid_post"]}
    found = streams_alone(subject, ids, taps)
    return found["pre"], found["post"]


def streams_alone(subject: Subject, ids: Tensor, taps: Mapping[Key, Tap]) -> dict[Key, Tensor]:
    """The tensor at each tap, (n, …), for single tokens, with attention writing nothing.

    Positional embeddings that are added to the stream are left out. The model stops after the last
    tap.

    Args:
        ids: (n,) int64.
    """
    silent = positions(subject)
    silent += [
        block.taps["attn_out"] for block in subject.architecture.blocks if "attn_out" in block.taps
    ]
    found: dict[Key, Tensor] = {}

    def keep(key: Key, tensor: Tensor) -> None:
        found[key] = tensor.detach().reshape(len(ids), -1).clone()

    column = ids.reshape(-1, 1).to(input_device(subject.model))
    width = subject.architecture.n_hidden
    with (
        torch.no_grad(),
        evaluating(subject.model),
        intervene([Replacement.zero(tap, range(width)) for tap in silent]),
        capture(taps, keep, then_stop=True),
    ):
        subject.model(input_ids=column, attention_mask=torch.ones_like(column))
    return found


def positions(subject: Subject) -> list[Tap]:
    """Find where positional embeddings are added to the stream."""
    sources = subject.layout.embedding.sources
    return [source.tap for source in sources if source.name == "position"]
