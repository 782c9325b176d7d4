"""A tiny model whose head hears one direction of the stream, and plain sets of prompts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from projector.model.loading import LoadedModel
from projector.residual.contrast.records import Point
from projector.residual.contrast.states import collect_states
from projector.residual.directions.finding import RowsOf
from projector.residual.subject import Subject
from tests.families import N_HIDDEN, build


@dataclass(frozen=True)
class Plain:
    """Sets as the rooms of directions take them; texts of the same number are a group."""

    positive: tuple[str, ...]
    negative: tuple[str, ...]
    name: str = "planted"
    positive_name: str = "up"
    negative_name: str = "down"
    sha256: str = "5" * 64
    # How many prompts in a row of each set are a group.
    of_group: int = 1
    positive_places: tuple[str, ...] = ()
    negative_places: tuple[str, ...] = ()

    @property
    def positive_groups(self) -> tuple[int, ...]:
        return tuple(i // self.of_group for i in range(len(self.positive)))

    @property
    def negative_groups(self) -> tuple[int, ...]:
        return tuple(i // self.of_group for i in range(len(self.negative)))


def sets_of(text: str, n: int = 16) -> Plain:
    """Made-up prompts of six words each."""
    words = text.split()
    prompts = [" ".join(words[6 * i : 6 * i + 6]) for i in range(2 * n)]
    return Plain(tuple(prompts[:n]), tuple(prompts[n:]))


def rows_from(
    subject: Subject, sets: Plain, *, at: str = "last", keep_outliers: bool = False
) -> RowsOf:
    """The rows that a contrast of the sets hands over."""
    states = collect_states(subject, sets, at=at, keep_outliers=keep_outliers)  # type: ignore[arg-type]
    return lambda layer, stream: states.at(Point(layer, stream))


def unit(seed: int = 5) -> Tensor:
    """(H,), of length 1."""
    vector = torch.randn(N_HIDDEN, generator=torch.Generator().manual_seed(seed))
    return vector / vector.norm()


def plant(tokenizer: Any, direction: Tensor) -> Subject:
    """A model that hears ``direction`` (H,) alone: along it the logits of one half of the
    vocabulary rise and those of the other fall."""
    model = build("llama")
    with torch.no_grad():
        model.model.norm.weight.fill_(1.0)
        signs = torch.ones(len(model.lm_head.weight))
        signs[::2] = -1
        model.lm_head.weight.copy_(0.5 * signs[:, None] * direction)
        # The last block adds next to nothing to what it reads.
        model.model.layers[1].self_attn.o_proj.weight.mul_(0.001)
        model.model.layers[1].mlp.down_proj.weight.mul_(0.001)
    return Subject(LoadedModel(model, tokenizer, "planted", "a" * 64))


def rows_along(direction: Tensor, n: int, length: float) -> RowsOf:
    """Rows of two sets of ``n``, whose means are ``length`` apart along ``direction``."""
    generator = torch.Generator().manual_seed(3)
    noise = 0.01 * torch.randn(2, n, N_HIDDEN, generator=generator)
    half = 0.5 * length * direction

    def rows_of(layer: int, stream: str) -> tuple[Tensor, Tensor]:
        return noise[0] + half, noise[1] - half

    return rows_of
