"""A kind of source of text: how it is written, and what is asked of it."""

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

    A source is written ``PREFIX`` or ``PREFIX:REST``; of files, which have no prefix, all of it is
    the rest. Every function takes the rest.

    Attributes:
        prefix: what stands before the first colon; empty for files.
        form: how a source of this kind is written, for help.
        example: the same in a word or two, for a field's hint.
        read: gives the documents. Raises a UserError at once where the source can't be there, and
            as the documents are asked for where they can't be read.
        shown: the rest without the place that it lies at on this machine, for what is saved.
        local_path: the file or folder of this machine that would be read; None for none.
        is_stream: whether it is read only as far as needed, so that two readings of it may hold
            other documents, and it is known by its name alone.
    """

    prefix: str
    form: str
    example: str
    read: Callable[[str], Iterator[Document]]
    shown: Callable[[str], str] = _unchanged
    local_path: Callable[[str], str | None] = _reads_no_file
    is_stream: bool = False
