"""Text sources: a source string becomes a stream of documents.

Every kind of source is a :class:`~projector.corpus.reader.Reader`, registered here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from projector.corpus.documents import Document, hash_corpus
from projector.corpus.reader import Reader
from projector.corpus.readers import files, hub, stdlib
from projector.errors import UserError

# By prefix, in the order in which help tells them.
READERS: dict[str, Reader] = {}


def register(reader: Reader) -> None:
    """Register a kind of source for every command, page and message."""
    READERS[reader.prefix] = reader


register(stdlib.READER)
register(files.READER)
register(hub.READER)


@dataclass(frozen=True)
class Source:
    """A source of text as the user wrote it, and its reader."""

    text: str
    reader: Reader
    rest: str

    @property
    def name(self) -> str:
        """The source without its local folder, as it is saved and shown."""
        shown = self.reader.shown(self.rest)
        if not self.reader.prefix or ":" not in self.text:
            return shown or self.text
        return f"{self.reader.prefix}:{shown}"

    @property
    def is_stream(self) -> bool:
        """Whether it is read only as far as needed."""
        return self.reader.is_stream

    @property
    def local_path(self) -> str | None:
        """The local file or folder that would be read; None if there is none."""
        return self.reader.local_path(self.rest)

    def documents(self) -> Iterator[Document]:
        """Yield the documents.

        Raises:
            UserError: if the source doesn't exist or can't be read. Its existence is checked at
                once; it is read during iteration.
        """
        if not self.reader.prefix and not (self.text and Path(self.text).exists()):
            raise UserError(
                f"unknown corpus '{self.text}', and there is no such file or folder: give "
                f"{sources_hint()}"
            )
        return self.reader.read(self.rest)

    def is_of(self, name: str, sha256: str) -> bool:
        """Whether a corpus with this name and hash is the same text.

        Two corpora are the same if their documents are, even under different names. A stream, which
        may be read in part, is compared by its name. This reads all documents.
        """
        if self.is_stream:
            return self.name == name
        return hash_corpus(self.documents()) == sha256


def find_source(text: str) -> Source:
    """Find the source that a string describes; a string without a known prefix is a file or
    folder.
    """
    prefix, _, rest = text.partition(":")
    if prefix and prefix in READERS:
        return Source(text, READERS[prefix], rest)
    return Source(text, READERS[""], text)


def read_documents(source: str) -> Iterator[Document]:
    """Yield the documents of a source.

    Args:
        source: ``stdlib[:train|:heldout]``; a ``.txt`` (one document), ``.jsonl`` or ``.parquet``
            (one a row) file, or a folder of them; or ``hf:NAME[:CONFIG][:SPLIT][:COLUMN]``.

    Raises:
        UserError: if the source doesn't exist or can't be read. The existence of files is checked
            at once; they are read during iteration.
    """
    return find_source(source).documents()


@dataclass(frozen=True)
class OpenText:
    """Documents to read, the name of their source, and whether it is a stream."""

    name: str
    is_stream: bool
    documents: Iterator[Document]


def open_text(source: str | Iterable[Document]) -> OpenText:
    """Open a source, or take the documents themselves.

    Raises:
        UserError: as for :func:`read_documents`.
    """
    if isinstance(source, str):
        found = find_source(source)
        return OpenText(found.name, found.is_stream, found.documents())
    return OpenText("texts", False, iter(source))


def sources_help() -> str:
    """The syntax of every kind of source, for a command's help."""
    return _either([reader.form for reader in READERS.values()])


def sources_hint() -> str:
    """The syntax of every kind of source in a few words, for a field or a message."""
    return _either([reader.example for reader in READERS.values()])


def _either(parts: list[str]) -> str:
    return ", ".join([*parts[:-1], f"or {parts[-1]}"])
