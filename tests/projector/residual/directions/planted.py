"""A tiny model with a direction planted in it, and two sets that lie along it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from projector.model.loading import LoadedModel
from projector.residual.subject import Subject
from tests.families import N_HIDDEN, build

LAYER = 0


@dataclass(frozen=True)
class Plain:
    """Sets as the rooms of directions take them."""

    positive: tuple[str, ...]
    negative: tuple[str, ...]
    name: str = "planted"
    positive_name: str = "up"
    negative_name: str = "down"
    sha256: str = "s" * 64

    @property
    def positive_groups(self) -> tuple[int, ...]:
        return tuple(range(len(self.positive)))

    @property
    def negative_groups(self) -> tuple[int, ...]:
        """Each is the partner of the positive one of its number."""
        return tuple(range(len(self.negative)))


def sets_of(text: str, n: int = 16) -> Plain:
    """Made-up prompts of six words each."""
    words = text.split()
    prompts = [" ".join(words[6 * i : 6 * i + 6]) for i in range(2 * n)]
    return Plain(tuple(prompts[:n]), tuple(prompts[n:]))


def plant(tokenizer: Any, direction: Tensor) -> Subject:
    """A model whose head alone hears ``direction`` (H,), a unit vector: along it, one half of the
    vocabulary rises and the other falls; everything else of the stream hardly counts."""
    model = build("llama")
    assert isinstance(model, nn.Module)
    with torch.no_grad():
        for parameter in (model.model.norm.weight,):
            parameter.fill_(1.0)
        head = model.lm_head.weight
        head.mul_(0.02)
        signs = torch.ones(len(head))
        signs[::2] = -1
        head.add_(0.7 * signs[:, None] * direction)
        # The last block passes on what it reads, and adds little.
        for name, parameter in model.model.layers[1].named_parameters():
            if "o_proj" in name or "down_proj" in name:
                parameter.mul_(0.01)
    return Subject(LoadedModel(model, tokenizer, "planted", "a" * 64))


def unit() -> Tensor:
    vector = torch.randn(N_HIDDEN, generator=torch.Generator().manual_seed(5))
    return vector / vector.norm()
