"""Gather training text and test text, and the hidden states of both."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from torch import Tensor

from projector.corpus.batches import Corpus
from projector.corpus.documents import Document, plain_text
from projector.corpus.sources import OpenText, open_text
from projector.corpus.tokens import read_corpus
from projector.errors import UserError
from projector.model.context import find_context
from projector.progress import Progress
from projector.residual.particles.states import collect_states
from projector.residual.subject import Subject

# The most tokens of a window, and the fewest where a text has as many.
LONGEST, SHORTEST = 128, 8
# Every tenth document is held out, and an eighth as many tokens of these are read.
_HELD_OUT_EVERY, _HELD_OUT_SHARE = 10, 8
# States are kept as float32 while the network is trained.
_MOST_BYTES = 3 * 2**29
_TOKENS_AT_ONCE = 1024
# Of a stream no more documents are read than these tokens need, at this many characters each.
_CHARACTERS_A_TOKEN = 8


@dataclass(frozen=True, eq=False)
class Gathered:
    """The states of windows of text, (F, T, H) float32 each.

    Attributes:
        train, held_out: states of training text and of held-out text.
        corpus: provenance of the text.
        unseen: description of the held-out text.
        notes: remarks for the user.
    """

    train: list[Tensor]
    held_out: list[Tensor]
    corpus: dict[str, Any]
    unseen: str
    notes: tuple[str, ...]


def gather(
    subject: Subject,
    corpus: str | Iterable[Document],
    *,
    max_tokens: int,
    progress: Progress,
) -> Gathered:
    """Read a corpus and run the model on it.

    Windows begin at the start of a document or at the end of the previous window, and have up to
    128 tokens. Like a prompt, they start with the special tokens that the tokenizer adds before a
    text.

    Args:
        corpus: see :func:`projector.corpus.sources.read_documents`; or the documents themselves.
        max_tokens: largest number of tokens to train on; fewer if their states would need over 1.5
            GiB.

    Raises:
        UserError: if the corpus can't be read, or is too short to hold out text.
    """
    tokenizer = subject.loaded.tokenizer
    most = find_context(subject.model, tokenizer)
    length = LONGEST if most is None else min(LONGEST, most)
    progress.begin("Reading the corpus", None, "documents")
    text = open_text(corpus)
    train, held_out, unseen = _split(_documents(text, max_tokens, progress), text.name)
    notes: list[str] = []
    n_wanted = max_tokens
    found: dict[bool, list[Tensor]] = {}
    facts: dict[str, Any] = {}
    for is_held_out, documents in ((False, train), (True, held_out)):
        tokens = read_corpus(
            documents, tokenizer, sequence_length=length, max_tokens=n_wanted, packed=False
        )
        if not is_held_out:
            n_wanted = _affordable(subject, tokens, max_tokens)
            if n_wanted < tokens.n_tokens:
                notes.append(
                    f"{n_wanted:,} tokens instead of {tokens.n_tokens:,}, because their hidden "
                    "states fill 1.5 GiB"
                )
                tokens = read_corpus(
                    documents, tokenizer, sequence_length=length, max_tokens=n_wanted, packed=False
                )
            facts = {
                "source": text.name,
                "sha256": tokens.sha256,
                "n_tokens": tokens.n_tokens,
                "n_tokens_available": tokens.n_available,
            }
            notes += tokens.notes
            n_wanted = max(1, n_wanted // _HELD_OUT_SHARE)
        else:
            facts |= {"held_out_sha256": tokens.sha256, "n_held_out_tokens": tokens.n_tokens}
        stage = "Running the model on unseen text" if is_held_out else "Running the model"
        progress.begin(stage, tokens.n_sequences, "windows")
        found[is_held_out] = _states(subject, tokens, progress)
    return Gathered(found[False], found[True], facts, unseen, tuple(notes))


def _documents(text: OpenText, max_tokens: int, progress: Progress) -> list[Document]:
    """All documents, or as many of a stream as are needed."""
    found: list[Document] = []
    n_characters = 0
    for document in text.documents:
        found.append(document)
        n_characters += len(plain_text(document))
        progress.advance(1)
        if text.is_stream and n_characters >= 2 * _CHARACTERS_A_TOKEN * max_tokens:
            break
    return found


def _split(documents: list[Document], name: str) -> tuple[list[Document], list[Document], str]:
    """Documents to train on, those held out, and what these are."""
    if len(documents) >= _HELD_OUT_EVERY:
        held_out = documents[_HELD_OUT_EVERY - 1 :: _HELD_OUT_EVERY]
        train = [each for i, each in enumerate(documents, 1) if i % _HELD_OUT_EVERY]
        return train, held_out, "other documents of the corpus"
    if len(documents) > 1:
        return documents[:-1], documents[-1:], "the last document of the corpus"
    if documents and isinstance(documents[0], str):
        text = documents[0]
        # At a space, so that no word is in both.
        place = text.find(" ", len(text) - len(text) // _HELD_OUT_EVERY)
        if place > 0 and text[:place].strip() and text[place:].strip():
            return [text[:place]], [text[place:]], "the last tenth of the corpus's one document"
    raise UserError(
        f"corpus '{name}' is too short: no text can be held out to test the autoencoder; give at "
        "least two documents"
    )


def _affordable(subject: Subject, tokens: Corpus, max_tokens: int) -> int:
    """How many tokens' states are kept: those of one window are measured."""
    window = tokens.ids[: tokens.starts[1]]
    states = collect_states(subject, [window.tolist()])[0]
    bytes_a_token = states.numel() * states.element_size() // len(window)
    return min(max_tokens, tokens.n_tokens, max(LONGEST, _MOST_BYTES // bytes_a_token))


def _states(subject: Subject, tokens: Corpus, progress: Progress) -> list[Tensor]:
    found: list[Tensor] = []
    n_at_once = max(1, _TOKENS_AT_ONCE // int(np.diff(tokens.starts).max()))
    for first in range(0, tokens.n_sequences, n_at_once):
        bounds = tokens.starts[first : first + n_at_once + 1]
        windows = [tokens.ids[a:b].tolist() for a, b in pairwise(bounds)]
        found += collect_states(subject, windows)
        progress.advance(len(windows))
    return found
