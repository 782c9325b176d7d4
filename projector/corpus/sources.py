"""Text sources: a source string becomes a stream of documents.

Every kind of source is one :class:`~projector.corpus.reader.Reader`, registered here by one line.
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
    """Make a kind of source known to every command, page and message."""
    READERS[reader.prefix] = reader


register(stdlib.READER)
register(files.READER)
register(hub.READER)


@dataclass(frozen=True)
class Source:
    """A source of text as the user gave it, and who reads it."""

    text: str
    reader: Reader
    rest: str

    @property
    def name(self) -> str:
        """The source without its folder on this machine, as it is saved and shown."""
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
        """The file or folder of this machine that would be read; None for none."""
        return self.reader.local_path(self.rest)

    def documents(self) -> Iterator[Document]:
        """The documents.

        Raises:
            UserError: if there is no such source, or it can't be read. It is looked for at once,
                and read as the documents are asked for.
        """
        if not self.reader.prefix and not (self.text and Path(self.text).exists()):
            raise UserError(
                f"unknown corpus '{self.text}', and there is no such file or folder: give "
                f"{sources_hint()}"
            )
        return self.reader.read(self.rest)

    def is_of(self, name: str, sha256: str) -> bool:
        """Whether a corpus of this name and hash is the same text.

        It is if its documents are, under whatever name; of a stream, which may be read in part, if
        its name is. Costs a reading of all documents.
        """
        if self.is_stream:
            return self.name == name
        return hash_corpus(self.documents()) == sha256


def find_source(text: str) -> Source:
    """A source by how the user writes it; what has no known prefix is a file or folder."""
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
        UserError: if there is no such source, or it can't be read. Files are looked for at once,
            and read as the documents are asked for.
    """
    return find_source(source).documents()


@dataclass(frozen=True)
class OpenText:
    """Documents to be read, the name of where they come from, and if they are a stream."""

    name: str
    is_stream: bool
    documents: Iterator[Document]


def open_text(source: str | Iterable[Document]) -> OpenText:
    """Open a source, or take the documents themselves.

    Raises:
        UserError: as :func:`read_documents`.
    """
    if isinstance(source, str):
        found = find_source(source)
        return OpenText(found.name, found.is_stream, found.documents())
    return OpenText("texts", False, iter(source))


def sources_help() -> str:
    """The syntax of every kind of source, for a command's help."""
    return _either([reader.form for reader in READERS.values()])


def sources_hint() -> str:
    """The same in a few words, for a field or a message."""
    return _either([reader.example for reader in READERS.values()])


def _either(parts: list[str]) -> str:
    return ", ".join([*parts[:-1], f"or {parts[-1]}"])
