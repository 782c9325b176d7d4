"""The text of tokens without a tokenizer: the bytes of each id, and how they are displayed."""

from __future__ import annotations

import codecs
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

_STATE = ("piece_ids", "piece_ends", "piece_bytes", "piece_special")
# What stands for signs that can't be seen.
_SIGNS = {"\n": "⏎", "\t": "⇥", "\r": "␍", "\v": "␋", "\f": "␌"}
_UNSEEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
# What a WordPiece decoder writes otherwise, token by token.
_CLEANED = (
    *((f" {sign}", sign) for sign in (".", "?", "!", ",")),
    (" ' ", "'"),
    *((f" {end}", end) for end in ("n't", "'m", "'s", "'ve", "'re")),
)


@dataclass(frozen=True, eq=False)
class Pieces:
    """The bytes of n token ids.

    Attributes:
        piece_ids: (n,) int64, ascending.
        piece_ends: (n,) int64, where the bytes of each id end in ``piece_bytes``.
        piece_bytes: (B,) uint8, UTF-8, the concatenated bytes of all ids. If a vocabulary marks the
            starts or the continuations of words, the space is part of the piece.
        piece_special: (n,) bool, control tokens such as the end of a text.
    """

    piece_ids: Tensor
    piece_ends: Tensor
    piece_bytes: Tensor
    piece_special: Tensor

    @classmethod
    def of_tokenizer(cls, tokenizer: Any, ids: Iterable[int] | Tensor | None = None) -> Pieces:
        """The pieces of a Hugging Face tokenizer, fast or slow.

        If the bytes can't be read from the tokenizer, a piece is the text that it decodes the
        single token to.

        Args:
            ids: the ids to include; None for all. Ids that the tokenizer lacks are left out.
        """
        wanted = _distinct(range(len(tokenizer)) if ids is None else ids)
        special = _special_of(tokenizer)
        try:
            spell = _Spelling(tokenizer)
            tokens: Sequence[str | bytes | None]
            tokens = tokenizer.convert_ids_to_tokens(wanted.tolist())
        except Exception:
            # Code of others, which may do anything.
            return cls._of_bytes({i: _decoded(tokenizer, i) for i in wanted.tolist()}, special)
        unknown = getattr(tokenizer, "unk_token", None)
        n_tokens = len(tokenizer)
        found = {
            i: spell(token)
            for i, token in zip(wanted.tolist(), tokens, strict=True)
            if token and (0 <= i < n_tokens or token != unknown)
        }
        return cls._of_bytes(found, special)

    @classmethod
    def _of_bytes(cls, found: Mapping[int, bytes], special: set[int]) -> Pieces:
        ids = list(found)
        ends = np.cumsum([len(found[i]) for i in ids], dtype=np.int64)
        flat = np.frombuffer(b"".join(found.values()), dtype=np.uint8)
        return cls(
            torch.tensor(ids, dtype=torch.int64),
            torch.from_numpy(ends),
            torch.from_numpy(flat.copy()),
            torch.tensor([i in special for i in ids], dtype=torch.bool),
        )

    def state(self) -> dict[str, Tensor]:
        """Tensors by name, as they are stored; :meth:`of_state` reads them."""
        return {
            name: (tensor.to(torch.uint8) if tensor.dtype == torch.bool else tensor)
            for name, tensor in ((name, getattr(self, name)) for name in _STATE)
        }

    @classmethod
    def of_state(cls, state: Mapping[str, Tensor]) -> Pieces:
        """Restore pieces from the result of :meth:`state`; other names are ignored.

        Raises:
            ValueError: if a tensor is missing, or the tensors don't fit together.
        """
        if missing := [name for name in _STATE if name not in state]:
            raise ValueError(f"the tensors of tokens' text lack {', '.join(missing)}")
        ids, ends, flat, special = (state[name] for name in _STATE)
        n = len(ids)
        whole = len(ends) == len(special) == n and (not n or int(ends[-1]) == len(flat))
        if not whole or not bool((ids.diff() > 0).all() and (ends.diff() >= 0).all()):
            raise ValueError("the tensors of tokens' text do not match")
        return cls(ids.long(), ends.long(), flat.to(torch.uint8), special.bool())

    def of_ids(self, ids: Iterable[int] | Tensor) -> Pieces:
        """Keep only the pieces of the given ids; unknown ids are left out."""
        wanted = _distinct(ids).tolist()
        found = {i: self._bytes[i] for i in wanted if i in self._bytes}
        return self._of_bytes(found, set(self.piece_ids[self.piece_special].tolist()))

    @cached_property
    def _bytes(self) -> dict[int, bytes]:
        flat, ends = self.piece_bytes.numpy().tobytes(), self.piece_ends.tolist()
        starts = [0, *ends][: len(ends)]
        bounds = zip(self.piece_ids.tolist(), starts, ends, strict=True)
        return {i: flat[start:end] for i, start, end in bounds}

    def __contains__(self, token_id: int) -> bool:
        return int(token_id) in self._bytes

    def is_special(self, ids: Iterable[int] | Tensor) -> list[bool]:
        """Whether each is a control token, such as the end of a text."""
        special = set(self.piece_ids[self.piece_special].tolist())
        return [i in special for i in _plain(ids)]

    def texts(self, ids: Iterable[int] | Tensor) -> list[str]:
        """One text per token, in context: joined, they are the decoded text, with its spaces.

        A character that is split over several tokens is shown at the last of these tokens, and the
        earlier ones are empty. An unknown id is written as its number, ``⟨12⟩``.
        """
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        found = []
        for i in _plain(ids):
            piece = self._bytes.get(i)
            if piece is None:
                found.append(decoder.decode(b"", final=True) + f"⟨{i}⟩")
                decoder.reset()
            else:
                found.append(decoder.decode(piece))
        if found:
            found[-1] += decoder.decode(b"", final=True)
        return found

    def text(self, token_id: int) -> str:
        """The text of a single token; incomplete characters are shown as byte values, ``\\xe2``."""
        piece = self._bytes.get(int(token_id))
        return f"⟨{int(token_id)}⟩" if piece is None else piece.decode(errors="backslashreplace")


def readable(text: str, *, running: bool = False) -> str:
    """Make white space visible: ⏎ for a new line, ⇥ for a tab, ␣ for a space.

    Args:
        running: for running text: spaces stay, and a line breaks after its ⏎. Otherwise the text is
            put on one line, and spaces at its start and end, or several in a row, are shown as ␣.
    """
    if not running:
        text = re.sub(r"^ +| +$| {2,}", lambda found: "␣" * len(found[0]), text)
    shown = []
    for sign in text:
        if sign in _SIGNS:
            keeps = running and sign in "\n\t"
            shown.append(_SIGNS[sign] + (sign if keeps else ""))
        elif unicodedata.category(sign) in _UNSEEN:
            shown.append(f"⟨U+{ord(sign):04X}⟩")
        else:
            shown.append(sign)
    return "".join(shown)


class _Spelling:
    """What a tokenizer's decoder makes of one token, as bytes: ``spell(token)``."""

    def __init__(self, tokenizer: Any) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        self._is_byte_level = self._has_byte_tokens = False
        self._replaced: list[tuple[str, str]] = []
        self._prefix: str | None = None
        self._cleaned: tuple[tuple[str, str], ...] = ()
        self._suffix: str | None = None
        self._joined_by_space = False
        if backend is None:
            self._sniff(tokenizer)
        elif backend.decoder is None:
            self._joined_by_space = True
        else:
            for step in _steps(json.loads(backend.decoder.__getstate__())):
                self._take(step)
        self._byte_of = _byte_level_table() if self._is_byte_level else {}

    def _take(self, step: dict[str, Any]) -> None:
        kind = step.get("type")
        if kind == "ByteLevel":
            self._is_byte_level = True
        elif kind == "ByteFallback":
            self._has_byte_tokens = True
        elif kind == "Metaspace":
            self._replaced.append((step["replacement"], " "))
        elif kind == "Replace" and "String" in step["pattern"]:
            self._replaced.append((step["pattern"]["String"], step["content"]))
        elif kind == "WordPiece":
            self._prefix = step["prefix"]
            self._cleaned = _CLEANED if step.get("cleanup") else ()
        elif kind == "BPEDecoder":
            self._suffix = step["suffix"]

    def _sniff(self, tokenizer: Any) -> None:
        # One written in Python tells nothing of how it decodes, and its vocabulary does.
        vocabulary = {token for token in tokenizer.get_vocab() if isinstance(token, str)}
        n_marked = dict.fromkeys(("Ġ", "▁", "##", "</w>"), 0)
        for token in vocabulary:
            for sign in n_marked:
                n_marked[sign] += sign in token
        most = max(n_marked, key=lambda sign: n_marked[sign])
        if not n_marked[most]:
            self._joined_by_space = True
        elif most == "Ġ":
            self._is_byte_level = True
        elif most == "▁":
            self._replaced, self._has_byte_tokens = [("▁", " ")], "<0x0A>" in vocabulary
        elif most == "##":
            self._prefix = "##"
        else:
            self._suffix = "</w>"

    def __call__(self, token: str | bytes) -> bytes:
        if isinstance(token, bytes):
            return token
        if self._is_byte_level and all(sign in self._byte_of for sign in token):
            return bytes(self._byte_of[sign] for sign in token)
        for old, new in self._replaced:
            token = token.replace(old, new)
        if self._has_byte_tokens and (byte := _BYTE_TOKEN.fullmatch(token)):
            return bytes([int(byte[1], 16)])
        if self._prefix is not None:
            inside = token.startswith(self._prefix) and len(token) > len(self._prefix)
            token = token.removeprefix(self._prefix) if inside else f" {token}"
            for old, new in self._cleaned:
                token = token.replace(old, new)
        if self._suffix is not None:
            token = token.replace(self._suffix, " ")
        return (f" {token}" if self._joined_by_space else token).encode(errors="replace")


def _special_of(tokenizer: Any) -> set[int]:
    """Ids of control tokens."""
    special = {int(i) for i in getattr(tokenizer, "all_special_ids", ())}
    added = getattr(tokenizer, "added_tokens_decoder", None) or {}
    return special | {int(i) for i, token in added.items() if getattr(token, "special", False)}


def _decoded(tokenizer: Any, token_id: int) -> bytes:
    """What a tokenizer makes of one token alone."""
    text: str = tokenizer.decode([token_id])
    return text.encode(errors="replace")


def _steps(decoder: dict[str, Any]) -> list[dict[str, Any]]:
    """The steps of a decoder in their order, sequences within sequences laid open."""
    if decoder.get("type") != "Sequence":
        return [decoder]
    return [step for inner in decoder["decoders"] for step in _steps(inner)]


def _byte_level_table() -> dict[str, int]:
    """Byte of each sign of a byte-level vocabulary: a byte that prints stands for itself, the
    others for the signs from U+0100 on."""
    printing = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    table = {chr(byte): byte for byte in printing}
    others = [byte for byte in range(256) if byte not in printing]
    return table | {chr(0x100 + k): byte for k, byte in enumerate(others)}


def _plain(ids: Iterable[int] | Tensor) -> list[int]:
    if isinstance(ids, Tensor | np.ndarray):
        return [int(i) for i in ids.tolist()]
    return [int(i) for i in ids]


def _distinct(ids: Iterable[int] | Tensor) -> np.ndarray:
    return np.unique(np.asarray(_plain(ids), dtype=np.int64))
