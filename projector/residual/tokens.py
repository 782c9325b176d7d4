"""Find a user's token in the vocabulary, and a position in a prompt."""

from __future__ import annotations

import difflib
import re
from typing import Any

from projector.corpus.pieces import Pieces, readable
from projector.errors import SettingError
from projector.model.context import input_embedding
from projector.residual.subject import Subject

_BY_ID = re.compile(r"#(\d{1,9})", re.ASCII)
# The other way round of :func:`projector.corpus.pieces.readable`.
_MEANT = {"␣": " ", "⏎": "\n", "⇥": "\t", "␍": "\r", "␋": "\v", "␌": "\f"}
_BY_CODE = re.compile(r"⟨U\+([0-9A-Fa-f]{4,6})⟩")
_MOST_PIECES = 8
_MOST_NEAR = 5


def find_token(subject: Subject, text: str | int, *, setting: str = "token") -> int:
    """Find the id of the token that a text names.

    A text is first matched exactly: `` the`` with its space and ``the`` without are different
    tokens. The symbols of :func:`projector.corpus.pieces.readable` are accepted (``␣the``, ``⏎``),
    and so is the vocabulary's own spelling (``Ġthe``). ``#262`` is the token with id 262, even if
    the vocabulary has a token with that text.

    Args:
        text: a text; or an id.
        setting: the setting that the text was given for, for errors.

    Raises:
        SettingError: on ``setting``, if no token or several match, with suggestions.
    """
    shown = text if isinstance(text, int) else readable(text)
    if isinstance(text, int):
        return _checked(subject, text, setting, shown)
    if by_id := _BY_ID.fullmatch(text.strip()):
        return _checked(subject, int(by_id[1]), setting, shown)
    if not text:
        raise SettingError(setting, text, "is empty", "give a token's text or its id, such as #262")
    pieces = subject.pieces()
    meant = unreadable(text)
    for spelling in dict.fromkeys((text, meant)):
        found = _of_text(subject, pieces, spelling)
        if found is not None:
            return found
    own = subject.loaded.tokenizer.convert_tokens_to_ids(text)
    if isinstance(own, int) and own != subject.loaded.tokenizer.unk_token_id and own in pieces:
        return own
    raise _not_one(subject, pieces, meant, setting, shown)


def find_position(n_tokens: int, position: int) -> int:
    """Find a position in a prompt; negative values count from the end.

    Raises:
        SettingError: on ``position``, if it is outside the prompt.
    """
    if not -n_tokens <= position < n_tokens:
        tokens = "token" if n_tokens == 1 else "tokens"
        raise SettingError(
            "position",
            position,
            f"is outside the prompt of {n_tokens:,} {tokens}",
            f"give 0 to {n_tokens - 1}, or -1 to -{n_tokens} to count from the end",
        )
    return position % n_tokens


def vocabulary_size(subject: Subject) -> int:
    """The number of tokens with a logit: rows of the head, or else of the embedding."""
    head = subject.model.get_output_embeddings()
    module: Any = input_embedding(subject.model) if head is None else head
    return int(module.weight.shape[0]) if module is not None else len(subject.loaded.tokenizer)


def unreadable(text: str) -> str:
    """Invert :func:`projector.corpus.pieces.readable`: ``␣a⏎`` is `` a`` and a new line."""
    text = _BY_CODE.sub(lambda code: chr(min(int(code[1], 16), 0x10FFFF)), text)
    return "".join(_MEANT.get(sign, sign) for sign in text)


def _checked(subject: Subject, token: int, setting: str, shown: str | int) -> int:
    most = vocabulary_size(subject) - 1
    if not 0 <= token <= most:
        raise SettingError(
            setting, shown, "is not a token of this model", f"give an id from #0 to #{most}"
        )
    return token


def _encoded(subject: Subject, text: str) -> list[int]:
    """A text's tokens, without those that the tokenizer puts around it."""
    return [int(i) for i in subject.loaded.tokenizer.encode(text, add_special_tokens=False)]


def _of_text(subject: Subject, pieces: Pieces, text: str) -> int | None:
    """The token that spells exactly this; of several, the one that the tokenizer chooses."""
    most = vocabulary_size(subject)
    same = [i for i in pieces.piece_ids.tolist() if i < most and pieces.text(i) == text]
    if len(same) < 2:
        return same[0] if same else None
    chosen = _encoded(subject, text)
    return chosen[0] if len(chosen) == 1 and chosen[0] in same else same[0]


def _not_one(
    subject: Subject, pieces: Pieces, text: str, setting: str, shown: str | int
) -> SettingError:
    """Why no single token is this text, and what to give for it."""
    others = _other_spellings(subject, pieces, text)
    ids = _encoded(subject, text)
    unknown = subject.loaded.tokenizer.unk_token_id
    if len(ids) < 2 or (unknown is not None and unknown in ids):
        near = others or _near(pieces, text)
        offer = f"similar tokens: {', '.join(near)}" if near else "give a token's id, such as #262"
        return SettingError(setting, shown, "is not a token of the vocabulary", offer)
    listed = [_named(pieces, i) for i in ids[:_MOST_PIECES]]
    more = ", …" if len(ids) > _MOST_PIECES else ""
    offer = f"give one of {', '.join(listed)}{more}"
    if others:
        offer += f"; or {' or '.join(others)}, which is one token"
    return SettingError(setting, shown, f"is {len(ids)} tokens", offer)


def _other_spellings(subject: Subject, pieces: Pieces, text: str) -> list[str]:
    """The same with a space before it, or without one, where that is one token."""
    other = text[1:] if text.startswith(" ") else f" {text}"
    found = _of_text(subject, pieces, other) if other else None
    return [] if found is None else [_named(pieces, found)]


def _near(pieces: Pieces, text: str) -> list[str]:
    by_text = {pieces.text(i): i for i in reversed(pieces.piece_ids.tolist())}
    bare = text.strip(" ").casefold()
    same = [each for each in by_text if each.strip(" ").casefold() == bare]
    near = same or difflib.get_close_matches(text, list(by_text), n=_MOST_NEAR, cutoff=0.7)
    return [_named(pieces, by_text[each]) for each in near[:_MOST_NEAR]]


def _named(pieces: Pieces, token: int) -> str:
    """A token as an error offers it: its text and its id."""
    return f"'{readable(pieces.text(token))}' (#{token})"
