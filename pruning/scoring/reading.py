"""Turn documents into a protocol's stream of token ids, with the bytes of each token."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import numpy as np

from projector.corpus.cutting import special_tokens
from projector.corpus.documents import Document, plain_text
from projector.errors import UserError, named
from pruning.scoring.spacing import without_spacing

_BLANK_LINE = "\n\n"
# More bytes than a token has: how much of a stream is read before it is tokenized.
_MOST_CHARACTERS_A_TOKEN = 16


class Reading:
    """Collects a protocol's stream of token ids, and the bytes of each token.

    ``prefix`` comes before every window and isn't in the stream.
    """

    def __init__(self, tokenizer: Any, protocol: str, detokenize: bool) -> None:
        self.tokenizer = tokenizer
        self.protocol = protocol
        self.detokenize = detokenize
        start = tuple(special_tokens(tokenizer)[0])
        self.prefix = start if protocol in ("windows", "stride") else ()
        self.before: tuple[int, ...] = ()
        self.after: tuple[int, ...] = ()
        if protocol in ("windows", "stride") and tokenizer.eos_token_id is not None:
            self.after = (tokenizer.eos_token_id,)
        elif protocol == "gptq-2048":
            self.before = start
        elif protocol == "lm-eval-word":
            begin = tokenizer.bos_token_id
            self.before = (tokenizer.eos_token_id if begin is None else begin,)
            if self.before[0] is None:
                raise UserError(
                    f"{named('protocol', 'lm-eval-word')} predicts a document from a "
                    "beginning-of-text or end-of-text token, and this tokenizer has neither: use "
                    f"{named('protocol', 'windows')}",
                    setting="protocol",
                    value="lm-eval-word",
                )
        self.hashes: dict[str, int] = {}
        self.n_bytes_of_texts = self.n_words = self.n_tokens = 0
        self.lengths: list[int] = []
        self._held: list[str] = []
        self._table = _bytes_of_tokens(tokenizer)
        self._ids: list[np.ndarray] = []
        self._bytes: list[np.ndarray | None] = []

    def add(self, documents: list[Document]) -> None:
        for document in documents:
            plain = plain_text(document).encode()
            self.hashes[hashlib.sha256(plain).hexdigest()] = len(plain)
        texts = [_written(document, self.tokenizer) for document in documents]
        for text in texts:
            self.n_bytes_of_texts += len(text.encode())
            self.n_words += len(re.split(r"\s+", text))
        if self.protocol == "gptq-2048":
            self._held += texts
        else:
            self._tokenize([without_spacing(t) for t in texts] if self.detokenize else texts)

    def finish(self) -> None:
        """Tokenize texts that are joined; call it after the last document."""
        if self._held:
            self._tokenize([_BLANK_LINE.join(self._held)])
            self._held = []

    def _tokenize(self, texts: list[str]) -> None:
        encoded = self.tokenizer(
            texts, add_special_tokens=False, return_attention_mask=False, verbose=False
        )
        for text, ids in zip(texts, encoded["input_ids"], strict=True):
            row = np.asarray(ids, dtype=np.int32)
            counts = self._count_bytes(text, row)
            self._ids.append(np.asarray([*self.before, *row, *self.after], dtype=np.int32))
            if counts is not None:
                counts = np.pad(counts, (len(self.before), len(self.after)))
            self._bytes.append(counts)
            self.lengths.append(len(self._ids[-1]))
            self.n_tokens += len(self._ids[-1])

    def _count_bytes(self, text: str, ids: np.ndarray) -> np.ndarray | None:
        counts = self._table[ids]
        if counts.sum() == len(text.encode()):
            return counts
        # Tokens that aren't bytes: pieces with a mark for a space, or pieces of a normalized text.
        return _bytes_by_offsets(text, self.tokenizer)

    @property
    def n_tokens_at_least(self) -> int:
        """Number of tokens so far; for texts that wait to be tokenized, a lower bound."""
        n_characters = sum(len(text) for text in self._held)
        return self.n_tokens + n_characters // _MOST_CHARACTERS_A_TOKEN

    @property
    def ids(self) -> np.ndarray:
        return np.concatenate(self._ids)

    @property
    def token_bytes(self) -> np.ndarray | None:
        """Bytes of each token, (n,) int64; they sum to the length of the texts in UTF-8."""
        known = [counts for counts in self._bytes if counts is not None]
        return np.concatenate(known) if len(known) == len(self._bytes) else None


def _written(document: Document, tokenizer: Any) -> str:
    if isinstance(document, str):
        return document
    if not getattr(tokenizer, "chat_template", None):
        raise UserError(
            "the corpus holds conversations, and this model has no chat template: give plain "
            "text, or a chat model"
        )
    return str(tokenizer.apply_chat_template(document, tokenize=False))


def _bytes_of_tokens(tokenizer: Any) -> np.ndarray:
    """Bytes of each token of a byte-level vocabulary, in which one character is one byte."""
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    return np.array([len(token or "") for token in tokens])


def _bytes_by_offsets(text: str, tokenizer: Any) -> np.ndarray | None:
    """Bytes from the end of the token before to the end of each token.

    If tokens share a character, the first gets its bytes. None for tokenizers written in Python,
    which give no offsets.
    """
    if not getattr(tokenizer, "is_fast", False):
        return None
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ends = np.array([end for _, end in offsets["offset_mapping"]], dtype=np.int64)
    if not len(ends):
        return ends
    ends = np.maximum.accumulate(ends)
    ends[-1] = len(text)
    points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    sizes = 1 + (points >= 0x80).astype(np.int64) + (points >= 0x800) + (points >= 0x10000)
    upto = np.concatenate([[0], np.cumsum(sizes)])
    return np.diff(upto[ends], prepend=0)
