"""Turn documents into sequences: tokenized, packed or separate, and cut to a length."""

from __future__ import annotations

from typing import Any

import numpy as np

from projector.corpus.documents import Document
from projector.errors import SettingError, UserError


def special_tokens(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The special tokens that the tokenizer adds before and after a text."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            return full[:start], full[start + len(bare) :]
    return [], []


class Cutter:
    """Collects token ids and cuts them into sequences."""

    def __init__(self, tokenizer: Any, sequence_length: int, packed: bool, skip_first: int) -> None:
        self.tokenizer = tokenizer
        self.sequence_length = sequence_length
        self.packed = packed
        self.skip_first = skip_first
        self.prefix, self.suffix = special_tokens(tokenizer)
        self.room = sequence_length - len(self.prefix) - len(self.suffix)
        if self.room < 1:
            n_special = len(self.prefix) + len(self.suffix)
            raise SettingError(
                "sequence_length",
                sequence_length,
                f"is too short: a sequence has {n_special} special tokens, and no text would fit",
                f"give {n_special + 1} or more",
            )
        self.sequences: list[np.ndarray] = []
        self.stream: list[np.ndarray] = []
        self.n_in_stream = 0
        self.n_in_sequences = 0
        self.n_conversations = self.n_cut = self.n_tokens_cut = 0

    def add(self, documents: list[Document]) -> None:
        """Tokenize documents; packed documents stay in the stream until :meth:`finish`."""
        texts = [d for d in documents if isinstance(d, str)]
        if texts:
            encoded = self.tokenizer(
                texts, add_special_tokens=False, return_attention_mask=False, verbose=False
            )
            end = self.tokenizer.eos_token_id
            for ids in encoded["input_ids"]:
                if self.packed and end is not None:
                    ids = [*ids, end]
                row = np.asarray(ids, dtype=np.int32)
                if self.packed:
                    self.stream.append(row)
                    self.n_in_stream += len(row)
                else:
                    self._cut(row)
        for document in documents:
            if not isinstance(document, str):
                self._add_conversation(document)

    def _add_conversation(self, conversation: Any) -> None:
        if not getattr(self.tokenizer, "chat_template", None):
            raise UserError(
                "the corpus holds conversations, and this model has no chat template: "
                "give plain text, or a chat model"
            )
        ids = self.tokenizer.apply_chat_template(conversation, tokenize=True, return_dict=False)
        self.n_conversations += 1
        if len(ids) > self.sequence_length:
            self.n_cut += 1
            self.n_tokens_cut += len(ids) - self.sequence_length
            ids = ids[: self.sequence_length]
        self._keep(np.asarray(ids, dtype=np.int32))

    def _cut(self, row: np.ndarray) -> None:
        for start in range(0, len(row), self.room):
            window = row[start : start + self.room]
            self._keep(np.concatenate([self.prefix, window, self.suffix]).astype(np.int32))

    def _keep(self, sequence: np.ndarray) -> None:
        self.sequences.append(sequence)
        self.n_in_sequences += max(0, len(sequence) - self.skip_first)

    @property
    def n_counted(self) -> int:
        """The number of tokens so far that count; in the stream, only full windows do."""
        per_window = self.sequence_length - self.skip_first
        return self.n_in_sequences + self.n_in_stream // self.room * per_window

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the lengths of all sequences and their concatenated ids."""
        if self.stream:
            self._cut(np.concatenate(self.stream))
            self.stream = []
        lengths = np.array([len(s) for s in self.sequences], dtype=np.int64)
        flat = np.concatenate(self.sequences) if self.sequences else np.zeros(0, dtype=np.int32)
        return lengths, flat

    @property
    def notes(self) -> list[str]:
        """Notes for the user about the text that was cut off."""
        if not self.n_cut:
            return []
        return [
            f"{self.n_cut:,} of {self.n_conversations:,} conversations were longer than "
            f"{self.sequence_length} tokens and were cut, which left out {self.n_tokens_cut:,} "
            "tokens (longer sequences would keep them)"
        ]
