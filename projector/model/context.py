"""A model's context length and input embedding."""

from __future__ import annotations

from typing import Any

from torch import nn

from projector.corpus.tokens import DEFAULT_SEQUENCE_LENGTH
from projector.errors import SettingError


def input_embedding(model: nn.Module) -> nn.Module | None:
    """The module that maps token ids to vectors; None if the model names none."""
    try:
        embedding: nn.Module | None = model.get_input_embeddings()  # type: ignore[operator]
    except (AttributeError, NotImplementedError):
        return None
    return embedding


def longest_sequence(model: nn.Module) -> int | None:
    """The model's largest number of positions; None if it sets no limit.

    RoBERTa and similar models number positions from the padding token's id, and so have fewer than
    their config says.
    """
    limit = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    if not isinstance(limit, int) or limit <= 0:
        return None
    embedding = input_embedding(model)
    for module in model.modules():
        if (
            isinstance(module, nn.Embedding)
            and module.num_embeddings == limit
            and module.padding_idx is not None
            and module is not embedding
        ):
            return limit - module.padding_idx - 1
    return limit


def find_context(model: nn.Module, tokenizer: Any) -> int | None:
    """The longest sequence that model and tokenizer accept; None if neither sets a limit."""
    limits = [longest_sequence(model), tokenizer.model_max_length]
    # Tokenizers without a limit of their own say 10^30.
    return min((n for n in limits if n and n < 10**9), default=None)


def choose_sequence_length(model: nn.Module, tokenizer: Any, asked: int | None) -> int:
    """Choose the sequence length: the requested one, or else the default, or the context of model
    and tokenizer if that is shorter.

    Raises:
        SettingError: on ``sequence_length``, if it is longer than their context.
    """
    most = find_context(model, tokenizer)
    if asked is None:
        return min(DEFAULT_SEQUENCE_LENGTH, most or DEFAULT_SEQUENCE_LENGTH)
    if most is not None and asked > most:
        raise SettingError(
            "sequence_length",
            asked,
            "is longer than this model's context",
            f"give at most {most:,}",
        )
    return asked
