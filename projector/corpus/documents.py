"""Documents (texts or conversations): reading them from the rows of a data set, and hashes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from projector.errors import UserError

# A document is a text, or a conversation: messages with a role and a content.
Conversation = list[dict[str, str]]
Document = str | Conversation

# Where a row keeps its document, the first of these that it has.
COLUMNS = ("text", "content", "messages", "conversations", "conversation")


def choose_column(names: list[str], where: str) -> str:
    """Choose the column that holds the documents.

    Raises:
        UserError: if there are several columns and none has a known name.
    """
    for column in COLUMNS:
        if column in names:
            return column
    if len(names) == 1:
        return names[0]
    raise UserError(
        f"{where} has none of the columns {', '.join(COLUMNS)}: its columns are {', '.join(names)}"
    )


def documents_of(row: Any, where: str) -> Iterator[Document]:
    """Yield the document of a row, if there is one.

    Args:
        row: a text, a conversation, or a mapping with a column of either.
        where: name of the row, for error messages.

    Raises:
        UserError: if the row holds neither text nor messages.
    """
    value = row
    if isinstance(row, Mapping):
        value = row[choose_column(list(row), where)]
    if isinstance(value, str):
        _check_text(value, where)
        if value.strip():
            yield value
    elif isinstance(value, list) and value and all(_is_message(m) for m in value):
        for message in value:
            _check_text(message["role"] + message["content"], where)
        yield [{"role": m["role"], "content": m["content"]} for m in value]
    elif value is not None and value != []:
        raise UserError(
            f"{where} holds a {type(value).__name__} where text or messages are expected"
        )


def _check_text(text: str, where: str) -> None:
    """JSON can spell half of a surrogate pair, which no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{where} holds {text[error.start]!a}, half of a surrogate pair: remove it"
        ) from error


def _is_message(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and isinstance(value.get("role"), str)
        and isinstance(value.get("content"), str)
    )


def plain_text(document: Document) -> str:
    """A document as one text; a conversation becomes JSON with sorted keys."""
    return document if isinstance(document, str) else json.dumps(document, sort_keys=True)


def hash_document(document: Document) -> str:
    """SHA-256 of a document as one text."""
    return hashlib.sha256(plain_text(document).encode()).hexdigest()


def hash_documents(documents: Iterable[Document]) -> frozenset[str]:
    """The set of the documents' hashes, used to find documents that two corpora share."""
    return frozenset(map(hash_document, documents))


class CorpusHash:
    """SHA-256 of documents in their order, updated as they are read."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, document: Document) -> None:
        encoded = plain_text(document).encode()
        self._digest.update(f"{len(encoded)}\n".encode() + encoded)

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


def hash_corpus(documents: Iterable[Document]) -> str:
    """SHA-256 of all documents in order, as stored in a projection."""
    digest = CorpusHash()
    for document in documents:
        digest.add(document)
    return digest.hexdigest()
