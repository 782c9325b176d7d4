"""A text source becomes batches of token ids with attention masks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from projector.corpus.sources import Document, read_documents, source_name
from projector.errors import UserError

DEFAULT_SEQUENCE_LENGTH = 256
_DOCUMENTS_AT_ONCE = 128
# Of the sequences drawn, the share that may prove to be past the budget; and how often to try.
_MOST_LEFT_OUT = 0.02
_MOST_TRIES = 10


@dataclass(frozen=True)
class Batch:
    """Some sequences, padded on the right to the longest.

    ``input_ids`` and ``attention_mask`` are (B, T) int64; ``keep`` (B, T) bool marks the tokens
    that count; ``first`` is the index of the first sequence within the corpus.
    """

    input_ids: Tensor
    attention_mask: Tensor
    keep: Tensor
    first: int

    @property
    def n_tokens(self) -> int:
        return int(self.keep.sum())


@dataclass(frozen=True)
class Corpus:
    """Tokenized sequences, drawn evenly from a source.

    Attributes:
        source: as the user gave it; a file by its name, without its path.
        sha256: hash over the documents that were read.
        ids: token ids of all sequences end to end, int32.
        starts: where each sequence starts in ``ids``, and the end; (n_sequences + 1,) int64.
        skip_first: positions at the start of each sequence that do not count.
        n_tokens: tokens that count.
        n_available: tokens that would count were none left out by ``max_tokens``.
        notes: what the user should know: what was cut, what was drawn.
    """

    source: str
    sha256: str
    ids: np.ndarray
    starts: np.ndarray
    skip_first: int
    n_tokens: int
    n_available: int
    pad_id: int
    notes: tuple[str, ...]

    @property
    def n_sequences(self) -> int:
        return len(self.starts) - 1

    @cached_property
    def ids_sha256(self) -> str:
        """Hash over the tokens, and where sequences start."""
        parts = hashlib.sha256(np.ascontiguousarray(self.ids).data)
        parts.update(np.ascontiguousarray(self.starts).data)
        return parts.hexdigest()

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """The sequences in order, ``batch_size`` at a time."""
        for first in range(0, self.n_sequences, batch_size):
            bounds = self.starts[first : first + batch_size + 1]
            lengths = torch.from_numpy(np.diff(bounds))
            longest = int(lengths.max())
            place = torch.arange(longest)
            mask = place < lengths[:, None]
            ids = torch.full(mask.shape, self.pad_id, dtype=torch.int64)
            ids[mask] = torch.from_numpy(self.ids[bounds[0] : bounds[-1]].astype(np.int64))
            yield Batch(ids, mask.long(), mask & (place >= self.skip_first), first)


def read_corpus(
    source: str | Iterable[Document],
    tokenizer: Any,
    *,
    sequence_length: int = DEFAULT_SEQUENCE_LENGTH,
    max_tokens: int | None = None,
    skip_first: int = 1,
    packed: bool = True,
    advance: Callable[[int], None] = lambda n_documents: None,
) -> Corpus:
    """Read, tokenize and cut a source into sequences.

    ``packed``: documents stand one after another, an end-of-text token between them, in windows of
    ``sequence_length``. Otherwise each document has windows of its own. Every window begins and
    ends with the special tokens that the tokenizer puts around a text. A conversation is written by
    the tokenizer's chat template, is always a sequence of its own, and is cut at
    ``sequence_length``.

    Args:
        source: see :func:`projector.corpus.sources.read_documents`; or the documents themselves.
        tokenizer: a Hugging Face tokenizer.
        max_tokens: most tokens to count. Where the source holds more, windows are drawn evenly over
            all of it; a stream from the hub is read only as far as needed.
        advance: called with the number of documents read since the last call.

    Raises:
        UserError: if the source is empty, or a sequence would hold no token that counts.
    """
    if sequence_length <= skip_first:
        raise UserError(
            f"sequences of {sequence_length} tokens hold none that counts when the first "
            f"{skip_first} are skipped: raise --sequence-length or lower --skip-first"
        )
    if max_tokens is not None and max_tokens < 1:
        raise UserError(f"--max-tokens {max_tokens:,} leaves no token: give 1 or more")
    if isinstance(source, str):
        name = source_name(source)
        is_stream = source.startswith("hf:")
        documents: Iterator[Document] = read_documents(source)
    else:
        name, is_stream, documents = "texts", False, iter(source)

    cutter = _Cutter(tokenizer, sequence_length, packed, skip_first)
    digest = hashlib.sha256()
    n_documents = 0
    while chunk := list(islice(documents, _DOCUMENTS_AT_ONCE)):
        for document in chunk:
            _count_in(digest, document)
        cutter.add(chunk)
        n_documents += len(chunk)
        advance(len(chunk))
        if is_stream and max_tokens is not None and cutter.n_counted >= max_tokens:
            break
    if not n_documents:
        raise UserError(f"corpus '{name}' is empty: it holds no text")

    lengths, flat = cutter.finish()
    counted = np.maximum(lengths - skip_first, 0)
    usable = np.flatnonzero(counted)
    n_available = int(counted.sum())
    if not n_available:
        raise UserError(
            f"corpus '{name}' holds no token that counts: its {len(lengths):,} sequences are "
            f"no longer than the {skip_first} skipped tokens"
        )
    notes = list(cutter.notes)
    chosen, last_length = _draw(usable, counted, max_tokens, skip_first)
    n_tokens = int(counted[chosen].sum())
    if last_length is not None:
        n_tokens += last_length - skip_first - int(counted[chosen[-1]])
    if max_tokens is not None and n_available > n_tokens:
        how = "from the start of the stream" if is_stream else "drawn evenly over the corpus"
        of = "" if is_stream else f" of {n_available:,}"
        notes.append(f"{n_tokens:,}{of} tokens, {how}")
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    kept_lengths = lengths[chosen].copy()
    if last_length is not None:
        kept_lengths[-1] = last_length
    ids = np.concatenate(
        [flat[bounds[i] : bounds[i] + n] for i, n in zip(chosen, kept_lengths, strict=True)]
    )
    pad_id = tokenizer.pad_token_id
    return Corpus(
        source=name,
        sha256=digest.hexdigest(),
        ids=ids,
        starts=np.concatenate([[0], np.cumsum(kept_lengths)]),
        skip_first=skip_first,
        n_tokens=n_tokens,
        n_available=n_available,
        pad_id=pad_id if pad_id is not None else tokenizer.eos_token_id or 0,
        notes=tuple(notes),
    )


def _draw(
    usable: np.ndarray, counted: np.ndarray, max_tokens: int | None, skip_first: int
) -> tuple[np.ndarray, int | None]:
    """Which sequences to keep, and the length to cut the last of them to (None: whole).

    Drawn at even steps, as few as fill the budget: were more drawn, those at the end would be left
    out, and the end of the corpus with them.
    """
    if max_tokens is None or counted[usable].sum() <= max_tokens:
        return usable, None
    # Were all as long as the longest, this many would do; fewer never do.
    n_drawn = int(np.ceil(max_tokens / counted[usable].max()))
    chosen, least_left_out, n_tries = usable, 1.0, 0
    while least_left_out > _MOST_LEFT_OUT and n_tries < _MOST_TRIES:
        places = (np.arange(n_drawn) + 0.5) * len(usable) / n_drawn
        drawn = usable[places.astype(np.int64)]
        n_kept = int(np.searchsorted(np.cumsum(counted[drawn]), max_tokens)) + 1
        if n_kept <= n_drawn:
            # Steps that fall in with a pattern of lengths overshoot by far; the next ones do not.
            n_tries += 1
            if 1 - n_kept / n_drawn < least_left_out:
                chosen, least_left_out = drawn[:n_kept], 1 - n_kept / n_drawn
        if n_drawn == len(usable):
            break
        n_drawn = min(len(usable), n_drawn + max(1, n_drawn // 50))
    surplus = int(counted[chosen].sum()) - max_tokens
    if surplus <= 0:
        return chosen, None
    return chosen, int(counted[chosen[-1]]) + skip_first - surplus


class _Cutter:
    """Collects token ids and cuts them into sequences."""

    def __init__(self, tokenizer: Any, sequence_length: int, packed: bool, skip_first: int) -> None:
        self.tokenizer = tokenizer
        self.sequence_length = sequence_length
        self.packed = packed
        self.skip_first = skip_first
        self.prefix, self.suffix = special_tokens(tokenizer)
        self.room = sequence_length - len(self.prefix) - len(self.suffix)
        if self.room < 1:
            raise UserError(
                f"sequences of {sequence_length} tokens have no room beside the "
                f"{len(self.prefix) + len(self.suffix)} special ones: raise --sequence-length"
            )
        self.sequences: list[np.ndarray] = []
        self.stream: list[np.ndarray] = []
        self.n_in_stream = 0
        self.n_in_sequences = 0
        self.n_conversations = self.n_cut = self.n_tokens_cut = 0

    def add(self, documents: list[Document]) -> None:
        """Tokenize documents; packed ones wait in the stream until :meth:`finish`."""
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
        """Tokens so far that count; of the stream, those of its whole windows."""
        per_window = self.sequence_length - self.skip_first
        return self.n_in_sequences + self.n_in_stream // self.room * per_window

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        """Lengths of all sequences, and their ids end to end."""
        if self.stream:
            self._cut(np.concatenate(self.stream))
            self.stream = []
        lengths = np.array([len(s) for s in self.sequences], dtype=np.int64)
        flat = np.concatenate(self.sequences) if self.sequences else np.zeros(0, dtype=np.int32)
        return lengths, flat

    @property
    def notes(self) -> list[str]:
        """What was cut off, for the user."""
        if not self.n_cut:
            return []
        return [
            f"{self.n_cut:,} of {self.n_conversations:,} conversations were longer than "
            f"{self.sequence_length} tokens and were cut: {self.n_tokens_cut:,} tokens left out "
            "(raise --sequence-length to keep them)"
        ]


def hash_source(documents: Iterable[Document]) -> str:
    """SHA-256 over documents, as :attr:`Corpus.sha256` has it of all that were read."""
    digest = hashlib.sha256()
    for document in documents:
        _count_in(digest, document)
    return digest.hexdigest()


def _count_in(digest: Any, document: Document) -> None:
    text = document if isinstance(document, str) else json.dumps(document, sort_keys=True)
    encoded = text.encode()
    digest.update(f"{len(encoded)}\n".encode() + encoded)


def special_tokens(tokenizer: Any) -> tuple[list[int], list[int]]:
    """What the tokenizer puts before and after a text."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            return full[:start], full[start + len(bare) :]
    return [], []
