"""Data sets of the Hugging Face hub as a source of text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from projector.corpus.documents import Document, documents_of
from projector.corpus.reader import Reader
from projector.errors import UserError
from projector.hub import is_hub_id

_FORM = "hf:NAME[:CONFIG][:SPLIT][:COLUMN]"


def _read(rest: str) -> Iterator[Document]:
    # Not a generator itself: what is wrong with the name is said before anything is read.
    fields = rest.split(":")
    if not fields[0] or len(fields) > 4:
        raise UserError(f"unknown corpus 'hf:{rest}': write {_FORM}")
    name, config, split, column = (*fields, *[""] * (4 - len(fields)))
    return _rows(rest, name, config, split, column)


def _rows(rest: str, name: str, config: str, split: str, column: str) -> Iterator[Document]:
    from datasets import load_dataset

    try:
        rows = load_dataset(name, config or None, split=split or "train", streaming=True)
        for row in rows:
            if column and column not in row:
                raise UserError(f"'hf:{rest}' has no column '{column}': it has {', '.join(row)}")
            yield from documents_of({column: row[column]} if column else row, f"'hf:{rest}'")
    except UserError:
        raise
    except Exception as error:
        # Of any kind: datasets, its file readers and its HTTP client each have their own.
        text = " ".join(str(error).split())[:200]
        raise UserError(f"dataset 'hf:{rest}' can't be read: {text}") from error


def _shown(rest: str) -> str:
    # A data set's own name has one slash; a folder's path may begin with any.
    name, _, fields = rest.partition(":")
    if name.startswith((".", "/", "~")):
        name = Path(name).absolute().name
    return ":".join(part for part in (name, fields) if part)


def _local_path(rest: str) -> str | None:
    name = rest.partition(":")[0]
    return None if is_hub_id(name) else name


READER = Reader(
    prefix="hf",
    form=_FORM,
    example="hf:NAME",
    read=_read,
    shown=_shown,
    local_path=_local_path,
    is_stream=True,
)
