"""Turn a user's text into token ids for a model."""

from __future__ import annotations

import unicodedata
from typing import Any

from projector.corpus.cutting import special_tokens
from projector.errors import UserError, check_text
from projector.model.context import longest_sequence
from projector.model.loading import LoadedModel

MOST_CHARACTERS = 200_000


def is_empty(text: str) -> bool:
    """Whether a text has no visible character."""
    return not _without_control(text[:MOST_CHARACTERS]).strip()


def clean(text: str) -> str:
    """Remove control characters, lone surrogates and unassigned characters from a text.

    Joining characters, as used in emoji and in Persian, are kept.

    Raises:
        UserError: if no text is left, or it is far too long.
    """
    if len(text) > MOST_CHARACTERS:
        raise UserError(
            f"the prompt has {len(text):,} characters: give {MOST_CHARACTERS:,} at most"
        )
    kept = _without_control(text)
    if not kept.strip():
        raise UserError("the prompt is empty: type some text")
    return kept


def _without_control(text: str) -> str:
    return "".join(
        c for c in text if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cs", "Co", "Cn")
    )


def has_chat(tokenizer: Any) -> bool:
    """Whether a tokenizer has a chat template."""
    return bool(getattr(tokenizer, "chat_template", None))


def encode(
    loaded: LoadedModel, text: str, *, is_causal: bool, as_chat: bool = False, n_new: int = 0
) -> list[int]:
    """Token ids of a prompt, with the special tokens that the tokenizer adds around a text.

    If a causal model's tokenizer adds none at the start, its first special token is added there,
    because a document follows one in training.

    Args:
        as_chat: put the text through the model's chat template, as the user's turn.
        n_new: number of tokens that will be added after it.

    Raises:
        SettingError: on ``prompt``, if it is empty or can't be encoded as UTF-8.
        UserError: if the prompt and the tokens to be added exceed the model's context; or there is
            no chat template, or it rejects the text.
    """
    check_text("prompt", text)
    tokenizer = loaded.tokenizer
    if as_chat:
        if not has_chat(tokenizer):
            raise UserError("this model has no chat template: send the prompt as plain text")
        try:
            ids = tokenizer.apply_chat_template(
                [{"role": "user", "content": text}],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
            )["input_ids"]
        except Exception as error:
            # A template is a program that comes with the model, and may refuse in any way.
            raise UserError(
                f"the model's chat template rejects this prompt: {str(error)[:200]}; send the "
                "prompt as plain text"
            ) from error
    else:
        ids = tokenizer(text, verbose=False)["input_ids"]
        # What the tokenizer itself puts before a text is there already.
        is_begun = not is_causal or bool(special_tokens(tokenizer)[0])
        ids = list(ids) if is_begun else [*beginning(tokenizer), *ids]
    if not ids:
        raise UserError("the prompt has no token in this model's vocabulary: type other text")
    most = longest_sequence(loaded.model)
    if most is not None and len(ids) + n_new > most:
        added = f" and {n_new:,} are to be added" if n_new else ""
        n_over = len(ids) + n_new - most
        raise UserError(
            f"the prompt has {len(ids):,} tokens{added}, more than the model's context of "
            f"{most:,}: shorten it by {n_over:,} {'token' if n_over == 1 else 'tokens'}"
        )
    return [int(i) for i in ids]


def beginning(tokenizer: Any) -> list[int]:
    """The tokens before a causal model's text: those that its tokenizer adds, or else its first
    special token, which a document follows in training.
    """
    if before := special_tokens(tokenizer)[0]:
        return before
    first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    return [] if first is None else [int(first)]
