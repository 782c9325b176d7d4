"""Turn a text source into a corpus: sequences of token ids, and how many of them count."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

import numpy as np

from projector.corpus.batches import Corpus
from projector.corpus.cutting import Cutter
from projector.corpus.documents import CorpusHash, Document
from projector.corpus.drawing import Draw, draw
from projector.corpus.sources import open_text
from projector.errors import SettingError, UserError, check_least

DEFAULT_SEQUENCE_LENGTH = 256
_DOCUMENTS_AT_ONCE = 128


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

    If ``packed``, documents are concatenated with an end-of-text token between them and cut into
    windows of ``sequence_length``. Otherwise each document has its own windows. Every window begins
    and ends with the special tokens that the tokenizer adds around a text. A conversation is
    formatted with the tokenizer's chat template, is always a sequence of its own, and is cut at
    ``sequence_length``.

    Args:
        source: see :func:`projector.corpus.sources.read_documents`; or the documents themselves.
        tokenizer: a Hugging Face tokenizer.
        max_tokens: the largest number of tokens to count. If the source holds more, windows are
            drawn evenly over all of it; a stream from the hub is read only as far as needed.
        advance: called with the number of documents read since the last call.

    Raises:
        SettingError: if a sequence would hold no token that counts, or ``max_tokens`` is 0.
        UserError: if the source is empty, or none of its tokens counts.
    """
    if sequence_length <= skip_first:
        raise SettingError(
            "sequence_length",
            sequence_length,
            f"leaves no token to count after the first {skip_first} are skipped",
            f"give {skip_first + 1} or more",
        )
    check_least("max_tokens", max_tokens, 1)
    text = open_text(source)
    cutter = Cutter(tokenizer, sequence_length, packed, skip_first)
    digest = CorpusHash()
    n_documents = 0
    while chunk := list(islice(text.documents, _DOCUMENTS_AT_ONCE)):
        for document in chunk:
            digest.add(document)
        cutter.add(chunk)
        n_documents += len(chunk)
        advance(len(chunk))
        if text.is_stream and max_tokens is not None and cutter.n_counted >= max_tokens:
            break
    if not n_documents:
        raise UserError(f"corpus '{text.name}' is empty: it contains no text")

    lengths, flat = cutter.finish()
    drawn = draw(lengths, skip_first, max_tokens)
    if not drawn.n_available:
        raise UserError(
            f"corpus '{text.name}' has no token to count: its {len(lengths):,} sequences are no "
            f"longer than the {skip_first} skipped tokens"
        )
    pad_id = tokenizer.pad_token_id
    return Corpus(
        source=text.name,
        sha256=digest.hexdigest(),
        ids=drawn.of(flat, lengths),
        starts=np.concatenate([[0], np.cumsum(drawn.lengths)]),
        skip_first=skip_first,
        n_tokens=drawn.n_tokens,
        n_available=drawn.n_available,
        pad_id=pad_id if pad_id is not None else tokenizer.eos_token_id or 0,
        notes=(*cutter.notes, *_notes(drawn, text.is_stream)),
    )


def _notes(drawn: Draw, is_stream: bool) -> list[str]:
    """Tells the user what was drawn of a corpus."""
    if drawn.n_available <= drawn.n_tokens:
        return []
    if is_stream:
        return [f"{drawn.n_tokens:,} tokens, from the start of the stream"]
    of_all = f"{drawn.n_tokens:,} of {drawn.n_available:,} tokens"
    return [f"{of_all}, drawn evenly over the corpus"]
