"""Files and folders as a source of text."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from projector.corpus.documents import Document, choose_column, documents_of
from projector.corpus.reader import Reader
from projector.errors import UserError


def _read_text(path: Path) -> Iterator[Document]:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"'{path}' is not UTF-8 (byte 0x{error.object[error.start]:02x} at {error.start:,}): "
            "convert it, for example with iconv"
        ) from error
    except OSError as error:
        raise UserError(f"'{path}' can't be read: {error.strerror}") from error
    # Windows programs write a byte order mark, which does not belong to the text.
    text = text.removeprefix("\ufeff")
    if text.strip():
        yield text


def _read_jsonl(path: Path) -> Iterator[Document]:
    text = next(_read_text(path), "")
    assert isinstance(text, str)
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = getattr(error, "msg", error)
            raise UserError(f"'{path}' line {number:,} is not JSON: {reason}") from error
        yield from documents_of(row, f"'{path}' line {number:,}")


def _read_parquet(path: Path) -> Iterator[Document]:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            column = choose_column(file.schema_arrow.names, f"'{path}'")
            for batch in file.iter_batches(batch_size=1024, columns=[column]):
                for row in batch.to_pylist():
                    yield from documents_of(row, f"'{path}'")
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        # Damage past the footer is an OSError to Arrow.
        text = " ".join(str(error).split())
        raise UserError(f"'{path}' can't be read as parquet: {text}") from error


_READ: dict[str, Callable[[Path], Iterator[Document]]] = {
    ".txt": _read_text,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}


def _read(name: str) -> Iterator[Document]:
    path = Path(name)
    if path.is_dir():
        paths = sorted(p for p in path.rglob("*") if p.suffix in _READ and p.is_file())
        if not paths:
            raise UserError(
                f"corpus folder '{name}' contains no file that ends in {', '.join(_READ)}"
            )
        return (document for each in paths for document in _READ[each.suffix](each))
    if path.suffix not in _READ:
        raise UserError(
            f"corpus file '{name}' has an unsupported file type: give {', '.join(_READ)}"
        )
    return _READ[path.suffix](path)


def _shown(name: str) -> str:
    return Path(name).absolute().name


READER = Reader(
    prefix="",
    form=f"a {', '.join([*_READ][:-1])} or {[*_READ][-1]} file or a folder of them",
    example="a file, a folder",
    read=_read,
    shown=_shown,
    local_path=str,
)
