"""Cut a text into windows of tokens to predict, by named protocols.

- ``windows``: documents one after another, an end-of-text token after each, in windows of
  min(2,048, context) tokens that do not overlap. Each window begins with the special tokens that
  the tokenizer puts before a text; they predict its first token. Without such tokens, the first
  token is not scored. The last window may be shorter.
- ``stride``: the same, but each window begins ``stride`` tokens after the previous window. Each
  token is scored once, in the first window that holds it, so it has at least window − stride tokens
  before it (https://huggingface.co/docs/transformers/perplexity).
- ``gptq-2048``: documents joined by blank lines and tokenized as one text; windows of 2,048 tokens
  that do not overlap, their first token is not scored, and the tail is left out
  (https://github.com/IST-DASLab/gptq).
- ``lm-eval-word``: each document separately; its first token is predicted from the
  beginning-of-text token, or else the end-of-text token. A longer document takes several windows of
  the whole context. Each scores only tokens that no earlier window scored; the last begins earlier
  to be as long as the others. Perplexity is per word; white space separates words
  (https://github.com/EleutherAI/lm-evaluation-harness, ``loglikelihood_rolling``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from projector.corpus.documents import Document
from projector.corpus.sources import OpenText, open_text
from projector.errors import SettingError, UserError, check_choice, check_least, named
from projector.progress import Progress, Silent
from pruning.scoring.reading import Reading

PROTOCOLS = ("windows", "gptq-2048", "stride", "lm-eval-word")
LONGEST_WINDOW = 2048
DEFAULT_STRIDE = 1024
_DOCUMENTS_AT_ONCE = 128


@dataclass(frozen=True, eq=False)
class EvaluationText:
    """Windows of tokens to predict; they depend on the tokenizer, not on a model.

    A window is ``prefix`` and then ``ids[begins[i] : ends[i]]``, of which the last
    ``window_tokens[i]`` are scored, each predicted from all tokens before it in its window.

    Attributes:
        source: as the user gave it; a file by its name, without its path.
        protocol: one of :data:`PROTOCOLS`.
        description: the protocol in words, with the windows and the text.
        ids: token ids of the text, (n,) int32.
        prefix: token ids that every window begins with.
        begins: first token of each window within ``ids``, (n_windows,) int64.
        ends: one past its last token, (n_windows,) int64.
        window_tokens: number of scored tokens of each window, (n_windows,) int64.
        n_bytes: UTF-8 bytes of the scored tokens; None if the tokenizer doesn't show them. Special
            tokens between texts count 0 bytes.
        n_words: number of words of the text, for ``lm-eval-word``.
        n_documents: number of documents read.
        document_hashes: hash of every document, see
            :func:`projector.corpus.documents.hash_document`, and its bytes.
    """

    source: str
    protocol: str
    description: str
    ids: np.ndarray
    prefix: tuple[int, ...]
    begins: np.ndarray
    ends: np.ndarray
    window_tokens: np.ndarray
    n_bytes: int | None
    n_words: int | None
    n_documents: int
    document_hashes: dict[str, int]

    @property
    def n_windows(self) -> int:
        return len(self.begins)

    @property
    def n_tokens(self) -> int:
        """Number of scored tokens."""
        return int(self.window_tokens.sum())

    @property
    def lengths(self) -> np.ndarray:
        """Number of tokens of each window, including its prefix, (n_windows,) int64."""
        return self.ends - self.begins + len(self.prefix)

    @property
    def n_positions(self) -> int:
        """Number of positions that a model needs; it doesn't read the last token of a window."""
        return int(self.lengths.max()) - 1

    @property
    def sha256(self) -> str:
        """Hash over windows and prefix: equal if the same tokens are scored in the same way."""
        digest = hashlib.sha256(f"{self.protocol}\n{list(self.prefix)}\n".encode())
        for array in (self.ids, self.begins, self.ends, self.window_tokens):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def prepare(
    source: str | Iterable[Document],
    tokenizer: Any,
    model_context: int | None = None,
    protocol: str = "windows",
    *,
    stride: int | None = None,
    max_windows: int | None = None,
    detokenize: bool = False,
    progress: Progress | None = None,
) -> EvaluationText:
    """Read and tokenize a source, and cut it into the windows of a protocol.

    This module's docstring describes the protocols. The tokenizer's chat template turns
    conversations into text.

    Args:
        source: see :func:`projector.corpus.sources.read_documents`; or the documents themselves.
        tokenizer: a Hugging Face tokenizer.
        model_context: maximum number of tokens of the models, see
            :func:`projector.model.context.find_context`; None for 2,048.
        stride: for the protocol ``stride``; by default 1,024, or half a window if that is less.
        max_windows: maximum number of windows, drawn evenly from the whole windows; a stream from
            the hub is read only as far as needed. Not for ``lm-eval-word``.
        detokenize: for ``lm-eval-word``: undo WikiText's spaces around punctuation first; words and
            bytes are still counted in the original text.
        progress: receives the number of documents read.

    Raises:
        UserError: if there is no such source or protocol, or the text is shorter than one window.
    """
    progress = progress or Silent()
    check_options(protocol, stride, max_windows, detokenize)
    context = model_context or LONGEST_WINDOW
    if protocol == "gptq-2048" and context < LONGEST_WINDOW:
        raise UserError(
            f"{named('protocol', 'gptq-2048')} needs windows of 2,048 tokens, and this model "
            f"takes at most {context:,}: use {named('protocol', 'windows')}",
            setting="protocol",
            value=protocol,
        )
    text = open_text(source)
    reading = Reading(tokenizer, protocol, detokenize)
    most_tokens = None
    if text.is_stream and max_windows is not None:
        most_tokens = max_windows * min(LONGEST_WINDOW, context)
    _read(text, reading, most_tokens, progress)
    cut = _cut(reading, protocol, context, stride, text.name)
    n_available = cut.windows.shape[1]
    if not n_available:
        raise UserError(f"corpus '{text.name}' has no token to score: give more text")
    is_drawn = max_windows is not None and max_windows < n_available
    begins, ends, n_scored = _drawn(cut, max_windows or 0) if is_drawn else cut.windows
    how = "" if not is_drawn else ", drawn evenly" if not text.is_stream else ", from its start"
    of = f" of {n_available:,}" if is_drawn and not text.is_stream else ""
    return EvaluationText(
        source=text.name,
        protocol=protocol,
        description=f"{_describe(protocol, cut.words, reading, detokenize)}; {len(begins):,}{of} "
        f"window{'s' if n_available > 1 else ''} of {text.name}{how}",
        ids=reading.ids,
        prefix=reading.prefix,
        begins=begins,
        ends=ends,
        window_tokens=n_scored,
        n_bytes=_count_bytes(reading, protocol, ends, n_scored),
        n_words=reading.n_words if protocol == "lm-eval-word" else None,
        n_documents=len(reading.hashes),
        document_hashes=reading.hashes,
    )


def _read(text: OpenText, reading: Reading, most_tokens: int | None, progress: Progress) -> None:
    """Read all documents, or enough documents of a stream for ``most_tokens``."""
    progress.begin("Reading the corpus", None, "documents")
    while chunk := list(islice(text.documents, _DOCUMENTS_AT_ONCE)):
        reading.add(chunk)
        progress.advance(len(chunk))
        if most_tokens is not None and reading.n_tokens_at_least >= most_tokens:
            break
    progress.end()
    if not reading.hashes:
        raise UserError(f"corpus '{text.name}' is empty: it holds no text")
    reading.finish()


@dataclass(frozen=True, eq=False)
class _Cut:
    """All windows of a text: begin, end and scored tokens of each, (3, n_windows) int64. ``room``
    is the number of tokens of a whole window, 0 if windows differ; ``words`` describes the cut.
    """

    windows: np.ndarray
    room: int
    words: str


def _cut(reading: Reading, protocol: str, context: int, stride: int | None, name: str) -> _Cut:
    if protocol == "lm-eval-word":
        windows = _rolling_windows(reading.lengths, context)
        return _Cut(windows, 0, f"in windows of up to {context:,} tokens")
    n_window = min(LONGEST_WINDOW, context)
    room = n_window - max(0, len(reading.prefix) - 1)
    step = room
    words = f"windows of {n_window:,} tokens that do not overlap"
    if protocol == "stride":
        step = stride or min(DEFAULT_STRIDE, max(1, room // 2))
        if step > room:
            raise SettingError(
                "stride", step, "is more than a window holds", f"give {room:,} or less"
            )
        words = f"windows of {n_window:,} tokens, one every {step:,}"
    if reading.n_tokens < room:
        raise UserError(
            f"corpus '{name}' has {reading.n_tokens:,} tokens, and one window needs {room:,}: "
            "give more text"
        )
    windows = _even_windows(
        reading.n_tokens,
        room,
        step,
        first_is_known=not reading.prefix,
        keep_tail=protocol != "gptq-2048",
    )
    return _Cut(windows, room, words)


def _drawn(cut: _Cut, n: int) -> np.ndarray:
    """Of the whole windows ``n``, evenly; (3, n) int64."""
    whole = np.flatnonzero(cut.windows[1] - cut.windows[0] == cut.room)
    n_drawn = min(n, len(whole))
    places = (np.arange(n_drawn) + 0.5) * len(whole) / n_drawn
    return cut.windows[:, whole[places.astype(np.int64)]]


def _count_bytes(
    reading: Reading, protocol: str, ends: np.ndarray, n_scored: np.ndarray
) -> int | None:
    """UTF-8 bytes of the scored tokens; None if that is unknown."""
    if protocol == "lm-eval-word":
        return reading.n_bytes_of_texts
    if reading.token_bytes is None:
        return None
    upto = np.concatenate([[0], np.cumsum(reading.token_bytes)])
    return int((upto[ends] - upto[ends - n_scored]).sum())


def check_options(
    protocol: str, stride: int | None, max_windows: int | None, detokenize: bool
) -> None:
    """Raise a UserError for options that :func:`prepare` refuses for any text and model."""
    check_choice("protocol", protocol, PROTOCOLS)
    check_least("stride", stride, 1)
    check_least("max_windows", max_windows, 1)
    if stride is not None and protocol != "stride":
        raise _not_for(protocol, "stride", stride, "stride")
    if max_windows is not None and protocol == "lm-eval-word":
        raise UserError(
            f"{named('max_windows')} doesn't apply to {named('protocol', protocol)}, which scores "
            f"whole documents: leave {named('max_windows')} out",
            setting="max_windows",
            value=max_windows,
        )
    if detokenize and protocol != "lm-eval-word":
        raise _not_for(protocol, "detokenize", detokenize, "lm-eval-word")


def _not_for(protocol: str, setting: str, value: Any, its_protocol: str) -> UserError:
    return UserError(
        f"{named(setting)} doesn't apply to {named('protocol', protocol)}: add "
        f"{named('protocol', its_protocol)}",
        setting=setting,
        value=value,
    )


def _even_windows(
    n_tokens: int, room: int, step: int, *, first_is_known: bool, keep_tail: bool
) -> np.ndarray:
    """Begin, end and scored tokens of windows that begin every ``step`` tokens, (3, n_windows)
    int64.

    ``first_is_known``: the first token of a window is given, so it is not scored.
    """
    n_steps = max(0, -(-(n_tokens - room) // step)) if keep_tail else (n_tokens - room) // step
    begins = np.arange(n_steps + 1, dtype=np.int64) * step
    ends = np.minimum(begins + room, n_tokens)
    n_scored = np.diff(ends, prepend=0)
    if first_is_known:
        n_scored = np.minimum(n_scored, ends - begins - 1)
    windows = np.stack([begins, ends, n_scored])
    return windows[:, n_scored > 0]


def _rolling_windows(lengths: list[int], context: int) -> np.ndarray:
    """The same for documents of these lengths, each with the token that it is predicted from."""
    rows: list[tuple[int, int, int]] = []
    first = 0
    for length in lengths:
        scored_upto = 1
        while scored_upto < length:
            end = min(length, scored_upto + context)
            rows.append((first + max(0, end - context - 1), first + end, end - scored_upto))
            scored_upto = end
        first += length
    return np.array(rows, dtype=np.int64).reshape(-1, 3).T


def _describe(protocol: str, cut: str, reading: Reading, detokenize: bool) -> str:
    def shown(ids: tuple[int, ...]) -> str:
        return "".join(str(t) for t in reading.tokenizer.convert_ids_to_tokens(list(ids)))

    if protocol == "lm-eval-word":
        spacing = ", WikiText's spacing undone" if detokenize else ""
        return (
            f"each document by itself {cut}, its first token predicted from "
            f"{shown(reading.before)}, per word{spacing}"
        )
    if protocol == "gptq-2048":
        return f"documents joined by blank lines, {cut}, first token of each not scored"
    first = (
        f"first token of each predicted from {shown(reading.prefix)}"
        if reading.prefix
        else "first token of each not scored"
    )
    if protocol == "stride":
        first = "each token scored once" + (
            f", every window beginning with {shown(reading.prefix)}" if reading.prefix else ""
        )
    return f"{cut}, {first}"
