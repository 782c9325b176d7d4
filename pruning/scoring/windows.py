"""A text becomes windows of tokens to be predicted, under named protocols."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from projector.corpus.cutting import special_tokens
from projector.corpus.documents import Document, plain_text
from projector.corpus.sources import open_text
from projector.errors import UserError
from projector.progress import Progress, Silent

PROTOCOLS = ("windows", "gptq-2048", "stride", "lm-eval-word")
LONGEST_WINDOW = 2048
DEFAULT_STRIDE = 1024
_DOCUMENTS_AT_ONCE = 128
_BLANK_LINE = "\n\n"
# Shorter documents recur without being copies of a corpus: two of the standard library's
# modules that are held out stand, word for word, among the others.
_LEAST_TELLING_BYTES = 256
_MOST_SHARED = 0.01
# More than a token of any text spells: what is read of a stream before it is tokenized.
_MOST_CHARACTERS_A_TOKEN = 16


@dataclass(frozen=True, eq=False)
class EvaluationText:
    """Windows of tokens to be predicted; they know the tokenizer and no model.

    A window is ``prefix`` and then ``ids[begins[i] : ends[i]]``, of which the last
    ``window_tokens[i]`` are scored, each predicted from all that stands before it in its window.

    Attributes:
        source: as the user gave it; a file by its name, without its path.
        protocol: one of :data:`PROTOCOLS`.
        description: the protocol in words, and what it was applied to.
        ids: token ids of the text, (n,) int32.
        prefix: token ids that every window begins with.
        begins: first token of each window within ``ids``, (n_windows,) int64.
        ends: one past its last token, (n_windows,) int64.
        window_tokens: tokens scored in each window, (n_windows,) int64.
        n_bytes: UTF-8 bytes of the text that the scored tokens spell; None where the tokenizer
            does not tell which they are. Special tokens set between texts count none.
        n_words: words of the text, for ``lm-eval-word``.
        n_documents: documents that were read.
        document_hashes: of every document, see
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
        """Tokens that are scored."""
        return int(self.window_tokens.sum())

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each window, its prefix among them, (n_windows,) int64."""
        return self.ends - self.begins + len(self.prefix)

    @property
    def n_positions(self) -> int:
        """Positions a model needs: the last token of a window is predicted, never read."""
        return int(self.lengths.max()) - 1

    @property
    def sha256(self) -> str:
        """Hash over windows and prefix: equal where the same tokens are scored the same way."""
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

    - ``windows``: documents one after another, an end-of-text token after each, in windows of
      min(2,048, context) tokens that do not overlap. Each begins with the special tokens that the
      tokenizer begins a text with, from which its first token is predicted; without any, that
      token is not scored. The last window may be shorter.
    - ``stride``: the same, each window beginning ``stride`` tokens after the one before it; only
      tokens that no earlier window scored are scored, so that each has at least window − stride
      tokens before it (https://huggingface.co/docs/transformers/perplexity).
    - ``gptq-2048``: documents joined by blank lines and tokenized as one text; windows of 2,048
      tokens that do not overlap, their first token not scored, the tail left out
      (https://github.com/IST-DASLab/gptq).
    - ``lm-eval-word``: each document by itself, its first token predicted from the
      beginning-of-text or else the end-of-text token. A longer document takes several windows of
      the whole context, each scoring what no earlier one did; the last reaches back to be as long
      as the others. Perplexity is per word, words being what white space separates
      (https://github.com/EleutherAI/lm-evaluation-harness, ``loglikelihood_rolling``).

    A conversation is written out by the tokenizer's chat template.

    Args:
        source: see :func:`projector.corpus.sources.read_documents`; or the documents themselves.
        tokenizer: a Hugging Face tokenizer.
        model_context: most tokens the models take, see
            :func:`projector.model.context.find_context`; None for 2,048.
        stride: for the protocol of that name; by default 1,024, or half a window if that is less.
        max_windows: most windows, drawn evenly among the whole ones; a stream from the hub is
            read only as far as needed. Not for ``lm-eval-word``.
        detokenize: for ``lm-eval-word``: undo WikiText's spaces around punctuation first; words
            and bytes are still those of the text as it was.
        progress: told of the documents as they are read.

    Raises:
        UserError: if there is no such source or protocol, or the text is shorter than one window.
    """
    progress = progress or Silent()
    check_options(protocol, stride, max_windows, detokenize)
    context = model_context or LONGEST_WINDOW
    if protocol == "gptq-2048" and model_context is not None and model_context < LONGEST_WINDOW:
        raise UserError(
            f"--protocol gptq-2048 takes windows of 2,048 tokens, and this model at most "
            f"{model_context:,}: take --protocol windows"
        )
    text = open_text(source)
    name, is_stream = text.name, text.is_stream
    most_tokens = None
    if is_stream and max_windows is not None:
        most_tokens = max_windows * min(LONGEST_WINDOW, context)

    progress.begin("Reading the corpus", None, "documents")
    reading = _Reading(tokenizer, protocol, detokenize)
    while chunk := list(islice(text.documents, _DOCUMENTS_AT_ONCE)):
        reading.add(chunk)
        progress.advance(len(chunk))
        if most_tokens is not None and reading.n_tokens_at_least >= most_tokens:
            break
    progress.end()
    if not reading.hashes:
        raise UserError(f"corpus '{name}' is empty: it holds no text")
    reading.finish()

    if protocol == "lm-eval-word":
        windows = _rolling_windows(reading.lengths, context)
        cut = f"in windows of up to {context:,} tokens"
    else:
        n_window = min(LONGEST_WINDOW, context)
        room = n_window - max(0, len(reading.prefix) - 1)
        step = room
        cut = f"windows of {n_window:,} tokens that do not overlap"
        if protocol == "stride":
            step = stride or min(DEFAULT_STRIDE, max(1, room // 2))
            if step > room:
                raise UserError(f"--stride {step:,} is more than a window holds: at most {room:,}")
            cut = f"windows of {n_window:,} tokens, one every {step:,}"
        if reading.n_tokens < room:
            raise UserError(
                f"corpus '{name}' has {reading.n_tokens:,} tokens, and one window takes {room:,}: "
                "give more text"
            )
        windows = _even_windows(
            reading.n_tokens,
            room,
            step,
            first_is_known=not reading.prefix,
            keep_tail=protocol != "gptq-2048",
        )
    n_available = windows.shape[1]
    if not n_available:
        raise UserError(f"corpus '{name}' holds no token that can be scored: give more text")
    is_drawn = max_windows is not None and max_windows < n_available
    if is_drawn:
        whole = np.flatnonzero(windows[1] - windows[0] == room)
        n_drawn = min(int(max_windows or 0), len(whole))
        places = (np.arange(n_drawn) + 0.5) * len(whole) / n_drawn
        windows = windows[:, whole[places.astype(np.int64)]]
    begins, ends, n_scored = windows
    n_bytes = reading.n_bytes_of_texts if protocol == "lm-eval-word" else None
    if n_bytes is None and reading.token_bytes is not None:
        upto = np.concatenate([[0], np.cumsum(reading.token_bytes)])
        n_bytes = int((upto[ends] - upto[ends - n_scored]).sum())
    how = "" if not is_drawn else ", drawn evenly" if not is_stream else ", from its start"
    of = f" of {n_available:,}" if is_drawn and not is_stream else ""
    return EvaluationText(
        source=name,
        protocol=protocol,
        description=f"{_describe(protocol, cut, reading, detokenize)}; {len(begins):,}{of} "
        f"window{'s' if n_available > 1 else ''} of {name}{how}",
        ids=reading.ids,
        prefix=reading.prefix,
        begins=begins,
        ends=ends,
        window_tokens=n_scored,
        n_bytes=n_bytes,
        n_words=reading.n_words if protocol == "lm-eval-word" else None,
        n_documents=len(reading.hashes),
        document_hashes=reading.hashes,
    )


def check_disjoint(
    calibration_hashes: Collection[str],
    evaluation_hashes: Mapping[str, int],
    calibration: str = "calibration",
    evaluation: str = "evaluation",
) -> None:
    """Raise a UserError if text that a model is fitted to is text that it is judged by.

    Short documents, such as an empty module's one line, recur by chance: only where they make up
    more than a hundredth of the text do they tell.

    Args:
        calibration_hashes: from :func:`projector.corpus.documents.hash_documents`.
        evaluation_hashes: :attr:`EvaluationText.document_hashes`.
        calibration: name of the source, for the message.
        evaluation: the same.
    """
    shared = set(calibration_hashes) & set(evaluation_hashes)
    sizes = [evaluation_hashes[each] for each in shared]
    n_bytes = sum(evaluation_hashes.values())
    is_telling = any(n >= _LEAST_TELLING_BYTES for n in sizes)
    if is_telling or sum(sizes) > _MOST_SHARED * n_bytes:
        n_shared = len(shared)
        raise UserError(
            f"calibration on '{calibration}' and evaluation on '{evaluation}' share "
            f"{n_shared:,} document{'s' if n_shared > 1 else ''} of {len(evaluation_hashes):,}: "
            "give other text"
        )


def check_options(
    protocol: str, stride: int | None, max_windows: int | None, detokenize: bool
) -> None:
    """Raise a UserError for what :func:`prepare` would refuse of any text and model."""
    if protocol not in PROTOCOLS:
        raise UserError(f"unknown protocol '{protocol}': choose from {', '.join(PROTOCOLS)}")
    if stride is not None and protocol != "stride":
        raise UserError(f"--stride is not for --protocol {protocol}: add --protocol stride")
    if stride is not None and stride < 1:
        raise UserError(f"--stride {stride} is too small: give 1 or more")
    if max_windows is not None and max_windows < 1:
        raise UserError(f"--max-windows {max_windows} leaves no window: give 1 or more")
    if max_windows is not None and protocol == "lm-eval-word":
        raise UserError(
            "--max-windows is not for --protocol lm-eval-word, which scores whole documents"
        )
    if detokenize and protocol != "lm-eval-word":
        raise UserError(
            f"--detokenize is not for --protocol {protocol}: add --protocol lm-eval-word"
        )


class _Reading:
    """Collects a protocol's stream of token ids, and the bytes that each token spells.

    ``prefix`` stands before every window and not in the stream.
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
                    "--protocol lm-eval-word predicts a document from a beginning-of-text or "
                    "end-of-text token, and this tokenizer has neither: take --protocol windows"
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
            self._tokenize([_without_spacing(t) for t in texts] if self.detokenize else texts)

    def finish(self) -> None:
        """After the last document: what is tokenized as one text."""
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
        # Tokens that are no bytes: pieces with a mark for a space, or of a text made over first.
        return _bytes_by_offsets(text, self.tokenizer)

    @property
    def n_tokens_at_least(self) -> int:
        """Tokens so far; of texts that wait to be tokenized, fewer than they will give."""
        n_characters = sum(len(text) for text in self._held)
        return self.n_tokens + n_characters // _MOST_CHARACTERS_A_TOKEN

    @property
    def ids(self) -> np.ndarray:
        return np.concatenate(self._ids)

    @property
    def token_bytes(self) -> np.ndarray | None:
        """(n,) int64: sums to the length of the texts in UTF-8."""
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

    Of tokens that share a character, the first gets its bytes. None where the tokenizer, one
    written in Python, gives no offsets.
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


def _even_windows(
    n_tokens: int, room: int, step: int, *, first_is_known: bool, keep_tail: bool
) -> np.ndarray:
    """Begin, end and scored tokens of windows that begin ``step`` apart, (3, n_windows) int64.

    ``first_is_known``: nothing stands before a window, so its first token can't be predicted.
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


def _describe(protocol: str, cut: str, reading: _Reading, detokenize: bool) -> str:
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


def _spacing_rules() -> Iterator[tuple[re.Pattern[str], str]]:
    """What WikiText's own tokenization did to punctuation, undone rule after rule.

    In the order of the harness's ``wikitext`` task, since a rule sees what those before it left.
    """
    yield re.compile("s '"), "s'"
    for mark in "-,.":
        yield re.compile(f" @{re.escape(mark)}@ "), mark
    for mark in ":;.!?,":
        yield re.compile(f" {re.escape(mark)} "), f"{mark} "
    for left, right in ("()", "[]", "{}", '""', "''"):
        inner = rf"\s*([^{re.escape(right)}]*?)\s*"
        yield re.compile(re.escape(left) + inner + re.escape(right)), rf"{left}\1{right}"
    for n_marks in (4, 3, 2):
        yield re.compile(" ".join("=" * n_marks)), "=" * n_marks
    yield re.compile(" ° "), "°"
    yield re.compile(" \n"), "\n"
    yield re.compile("\n "), "\n"
    yield re.compile(" N "), " 1 "
    yield re.compile(" 's"), "'s"


def _without_spacing(text: str) -> str:
    for pattern, replacement in _spacing_rules():
        text = pattern.sub(replacement, text)
    return text
