"""How many tokens a model takes at once, and the table that they go through first."""

from __future__ import annotations

from typing import Any

from torch import nn


def input_embedding(model: nn.Module) -> nn.Module | None:
    """The module that turns token ids to vectors; None where the model names none."""
    try:
        embedding: nn.Module | None = model.get_input_embeddings()  # type: ignore[operator]
    except (AttributeError, NotImplementedError):
        return None
    return embedding


def longest_sequence(model: nn.Module) -> int | None:
    """The most positions the model has room for; None where it sets no limit.

    RoBERTa and its kind count positions from behind the padding token's id, and so have fewer than
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
    """The most tokens model and tokenizer take at once; None where neither sets a limit."""
    limits = [longest_sequence(model), tokenizer.model_max_length]
    # Tokenizers without a limit of their own say 10^30.
    return min((n for n in limits if n and n < 10**9), default=None)
