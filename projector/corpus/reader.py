"""A kind of text source: its syntax, and the functions that every kind provides."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from projector.corpus.documents import Document


def _unchanged(rest: str) -> str:
    return rest


def _reads_no_file(rest: str) -> str | None:
    return None


@dataclass(frozen=True)
class Reader:
    """A kind of source, such as the standard library or the hub's data sets.

    A source is written ``PREFIX`` or ``PREFIX:REST``. Files have no prefix, so the whole string is
    the rest. Every function takes the rest.

    Attributes:
        prefix: the text before the first colon; empty for files.
        form: the syntax of this kind of source, for help texts.
        example: a short form of the syntax, for a field's hint.
        read: yields the documents. It raises a UserError at once if the source doesn't exist, and
            during iteration if a document can't be read.
        shown: the rest without the local folder, as it is saved.
        local_path: the local file or folder that would be read; None if there is none.
        is_stream: whether it is read only as far as needed. Two readings of a stream may give
            different documents, so it is identified by its name alone.
    """

    prefix: str
    form: str
    example: str
    read: Callable[[str], Iterator[Document]]
    shown: Callable[[str], str] = _unchanged
    local_path: Callable[[str], str | None] = _reads_no_file
    is_stream: bool = False
