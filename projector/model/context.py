"""How many tokens a model takes at once, and the table that they go through first."""

from __future__ import annotations

from typing import Any

from torch import nn

from projector.corpus.tokens import DEFAULT_SEQUENCE_LENGTH
from projector.errors import SettingError


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


def choose_sequence_length(model: nn.Module, tokenizer: Any, asked: int | None) -> int:
    """How many tokens of a corpus a model reads at once: what was asked for, or else the default,
    or what model and tokenizer take if that is less.

    Raises:
        SettingError: on ``sequence_length``, if they do not take as many as were asked for.
    """
    most = find_context(model, tokenizer)
    if asked is None:
        return min(DEFAULT_SEQUENCE_LENGTH, most or DEFAULT_SEQUENCE_LENGTH)
    if most is not None and asked > most:
        raise SettingError(
            "sequence_length", asked, "is more than this model takes", f"give at most {most:,}"
        )
    return asked
