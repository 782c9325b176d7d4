"""Read calibration text, draw a seed's sequences, and hold some of them out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from projector.corpus.batches import Batch, Corpus
from projector.corpus.documents import Document, hash_documents
from projector.corpus.sources import open_text
from projector.corpus.tokens import DEFAULT_SEQUENCE_LENGTH, read_corpus
from projector.errors import SettingError, UserError, named
from projector.model.architecture.records import Architecture
from projector.model.context import find_context
from projector.model.loading import LoadedModel
from projector.progress import Progress, Silent
from pruning.limits import DEFAULT_SEQUENCES, HELD_OUT_EVERY

_CHARACTERS_A_TOKEN = 8


@dataclass(frozen=True)
class CalibrationText:
    """A source as sequences of token ids; each seed draws its own sequences.

    Attributes:
        source: as the user gave it; a file by its name, without its path.
        corpus: all its sequences.
        document_hashes: see :func:`projector.corpus.documents.hash_documents`.
    """

    source: str
    corpus: Corpus
    document_hashes: frozenset[str]

    @property
    def sequence_length(self) -> int:
        """Number of tokens of the longest sequence."""
        return int(np.diff(self.corpus.starts).max())

    def draw(self, n_sequences: int, seed: int) -> Corpus:
        """Draw ``n_sequences`` sequences at random, only of full length while there are enough.

        Raises:
            UserError: if the text has fewer sequences, or ``n_sequences`` is below 1.
        """
        if n_sequences < 1:
            raise SettingError("n_sequences", n_sequences, "leaves no text", "give 1 or more")
        lengths = np.diff(self.corpus.starts)
        if len(lengths) < n_sequences:
            raise UserError(
                f"calibration text '{self.source}' has {len(lengths):,} sequences, fewer than the "
                f"requested {n_sequences:,}: give more text or fewer {named('n_sequences')}",
                setting="n_sequences",
                value=n_sequences,
            )
        whole = np.flatnonzero(lengths == lengths.max())
        usable = whole if len(whole) >= n_sequences else np.arange(len(lengths))
        chosen = np.sort(np.random.default_rng(seed).choice(usable, n_sequences, replace=False))
        starts = self.corpus.starts
        rows = [self.corpus.ids[starts[i] : starts[i + 1]] for i in chosen]
        skipped = self.corpus.skip_first
        return replace(
            self.corpus,
            ids=np.concatenate(rows),
            starts=np.concatenate([[0], np.cumsum(lengths[chosen])]),
            n_tokens=int(np.maximum(lengths[chosen] - skipped, 0).sum()),
        )


def read_calibration(
    source: str | Iterable[Document],
    loaded: LoadedModel,
    architecture: Architecture,
    *,
    sequence_length: int | None = None,
    n_sequences: int = DEFAULT_SEQUENCES,
    progress: Progress | None = None,
) -> CalibrationText:
    """Read and tokenize calibration text.

    A causal model reads documents one after another. First positions count, unlike in a projection:
    some models have huge activations there, and break without them. A stream from the hub is read
    only as far as several draws of ``n_sequences`` need.

    Args:
        source: see :func:`projector.corpus.sources.read_documents`; or the documents themselves.
        sequence_length: tokens of a sequence; None for 256, or the model's context if shorter.

    Raises:
        UserError: if there is no such source, or it holds no text.
    """
    progress = progress or Silent()
    length = choose_length(loaded, sequence_length)
    text = open_text(source)
    documents = text.documents
    if text.is_stream:
        documents = _first_characters(documents, 8 * n_sequences * length * _CHARACTERS_A_TOKEN)
    kept: list[Document] = []

    def watched() -> Iterator[Document]:
        for document in documents:
            kept.append(document)
            yield document

    progress.begin("Reading the calibration text", None, "documents")
    corpus = read_corpus(
        watched(),
        loaded.tokenizer,
        sequence_length=length,
        skip_first=0,
        packed=architecture.is_causal,
        advance=progress.advance,
    )
    progress.end()
    return CalibrationText(text.name, replace(corpus, source=text.name), hash_documents(kept))


def choose_length(loaded: LoadedModel, asked: int | None) -> int:
    """The number of tokens of a calibration sequence: the given one, if the model takes it.

    Raises:
        UserError: if the model's context is shorter, or the sequence is too short.
    """
    most = find_context(loaded.model, loaded.tokenizer)
    if asked is None:
        return min(DEFAULT_SEQUENCE_LENGTH, most or DEFAULT_SEQUENCE_LENGTH)
    if asked < 2 or (most is not None and asked > most):
        raise SettingError(
            "sequence_length",
            asked,
            "is too small" if asked < 2 else "is more than the model takes",
            "give 2 or more" if most is None else f"give 2 to {most:,}",
        )
    return asked


def _first_characters(documents: Iterator[Document], most: int) -> Iterator[Document]:
    n_read = 0
    for document in documents:
        yield document
        n_read += len(str(document))
        if n_read >= most:
            return


def is_held_out(batch: Batch) -> Tensor:
    """Mark the held-out sequences of a batch, (B,) bool."""
    index = torch.arange(batch.first, batch.first + len(batch.input_ids))
    return index % HELD_OUT_EVERY == HELD_OUT_EVERY - 1


def n_fit_tokens(corpus: Corpus) -> int:
    """Number of tokens that estimates are made from: those of sequences that are not held out."""
    counts = np.maximum(np.diff(corpus.starts) - corpus.skip_first, 0)
    held_out = np.arange(len(counts)) % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
    return int(counts[~held_out].sum())


def check_draw(text: CalibrationText, n_sequences: int, seed: int, widths: Sequence[int]) -> None:
    """Raise a UserError if a seed's sequences leave the moments of the widest layer singular.

    E[h hᵀ] over T tokens has a rank of at most T.
    """
    check_count(n_fit_tokens(text.draw(n_sequences, seed)), n_sequences, widths)


def check_count(n_tokens: int, n_sequences: int, widths: Sequence[int]) -> None:
    """Raise a UserError if there are fewer tokens than neurons in the widest layer."""
    widest = max(widths)
    if n_tokens < widest:
        n_fit = n_sequences - n_sequences // HELD_OUT_EVERY
        needed_fit = -(-widest * n_fit // max(1, n_tokens))
        # Held-out sequences come between them.
        needed = needed_fit + (needed_fit - 1) // (HELD_OUT_EVERY - 1)
        raise UserError(
            f"{n_tokens:,} calibration tokens are too few for {widest:,} neurons, whose moments "
            f"are singular below {widest:,} tokens: give {named('n_sequences', needed)} or more",
            setting="n_sequences",
            value=n_sequences,
            expected=f"{needed} or more",
        )
