"""Text sources: a source string becomes a stream of documents."""

from __future__ import annotations

import hashlib
import json
import os
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from projector.errors import UserError

# A document is a text, or a conversation: messages with a role and a content.
Conversation = list[dict[str, str]]
Document = str | Conversation

STDLIB_SPLITS = ("train", "heldout")
SUFFIXES = (".txt", ".jsonl", ".parquet")
_HELD_OUT_DIVISOR = 20
_NOT_THE_LIBRARY = ("site-packages", "dist-packages")
# Written when the interpreter was built: full of the build machine's own paths and flags.
_GENERATED = "_sysconfigdata"
_COLUMNS = ("text", "content", "messages", "conversations", "conversation")


def read_documents(source: str) -> Iterator[Document]:
    """Yield the documents of a source.

    Args:
        source: ``stdlib[:train|:heldout]``; a ``.txt`` (one document), ``.jsonl`` or ``.parquet``
            (one a row) file, or a folder of them; or ``hf:NAME[:CONFIG][:SPLIT][:COLUMN]``.

    Raises:
        UserError: if there is no such source, or it can't be read. Files are looked for at once,
            and read as the documents are asked for.
    """
    name, _, rest = source.partition(":")
    if name == "stdlib":
        split = rest or "train"
        if split not in STDLIB_SPLITS:
            raise UserError(
                f"the corpus stdlib has no split '{split}': choose from {', '.join(STDLIB_SPLITS)}"
            )
        return (text for _, text in stdlib_modules(split))
    if name == "hf":
        return _read_hub(rest)
    path = Path(source)
    if source and path.is_dir():
        paths = sorted(p for p in path.rglob("*") if p.suffix in SUFFIXES and p.is_file())
        if not paths:
            raise UserError(f"corpus folder '{source}' holds no {', '.join(SUFFIXES)} file")
        return (document for each in paths for document in _READERS[each.suffix](each))
    if not source or not path.exists():
        raise UserError(
            f"unknown corpus '{source}', no file or folder here: give stdlib[:split], a file or "
            "folder, or hf:NAME"
        )
    if path.suffix not in _READERS:
        raise UserError(f"corpus file '{source}' is none of {', '.join(SUFFIXES)}")
    return _READERS[path.suffix](path)


def source_name(source: str) -> str:
    """The source without the place it lies at on this machine, for what is saved and shown."""
    kind, colon, rest = source.partition(":")
    if kind == "stdlib":
        return source
    if kind == "hf" and colon:
        # A data set's own name has one slash; a folder's path may begin with any.
        name, _, fields = rest.partition(":")
        if name.startswith((".", "/", "~")):
            name = Path(name).absolute().name
        return ":".join(part for part in ("hf", name, fields) if part)
    return Path(source).absolute().name


def is_held_out(module_path: str) -> bool:
    """Whether a standard-library module belongs to the ``heldout`` split.

    Args:
        module_path: path below the library's root, in posix form (``json/decoder.py``).
    """
    digest = hashlib.sha256(module_path.encode()).digest()
    return int.from_bytes(digest, "big") % _HELD_OUT_DIVISOR == 0


def stdlib_modules(split: str, root: Path | None = None) -> Iterator[tuple[str, str]]:
    """Yield (path below the root, text) of the running interpreter's own ``.py`` files.

    Files that are not UTF-8 are skipped (the library ships some on purpose, to test decoders), and
    so are installed packages and the build's generated configuration.
    """
    root = root or Path(sysconfig.get_path("stdlib"))
    for module_path, path in sorted(_python_files(root)):
        if is_held_out(module_path) != (split == "heldout"):
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        if text.strip():
            yield module_path, text


def _python_files(root: Path) -> Iterator[tuple[str, Path]]:
    for folder, names, files in os.walk(root):
        # Pruned, not passed over: installed packages can be many times the library.
        names[:] = [name for name in names if name not in _NOT_THE_LIBRARY]
        for file in files:
            if file.endswith(".py") and not file.startswith(_GENERATED):
                path = Path(folder, file)
                yield path.relative_to(root).as_posix(), path


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
    # Windows programs write a byte order mark, which is no text.
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
        yield from _document(row, f"'{path}' line {number:,}")


def _read_parquet(path: Path) -> Iterator[Document]:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            column = _choose_column(file.schema_arrow.names, f"'{path}'")
            for batch in file.iter_batches(batch_size=1024, columns=[column]):
                for row in batch.to_pylist():
                    yield from _document(row, f"'{path}'")
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        # Damage past the footer is an OSError to Arrow.
        text = " ".join(str(error).split())
        raise UserError(f"'{path}' is no parquet file that can be read: {text}") from error


_READERS: dict[str, Callable[[Path], Iterator[Document]]] = {
    ".txt": _read_text,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}


def _read_hub(rest: str) -> Iterator[Document]:
    from datasets import load_dataset

    fields = rest.split(":")
    if not fields[0] or len(fields) > 4:
        raise UserError(f"unknown corpus 'hf:{rest}': write hf:NAME[:CONFIG][:SPLIT][:COLUMN]")
    name, config, split, column = (*fields, *[""] * (4 - len(fields)))
    try:
        rows = load_dataset(name, config or None, split=split or "train", streaming=True)
        for row in rows:
            if column and column not in row:
                raise UserError(f"'hf:{rest}' has no column '{column}', but {', '.join(row)}")
            yield from _document({column: row[column]} if column else row, f"'hf:{rest}'")
    except UserError:
        raise
    except Exception as error:
        # Of any kind: datasets, its file readers and its HTTP client each have their own.
        text = " ".join(str(error).split())[:200]
        raise UserError(f"dataset 'hf:{rest}' can't be read: {text}") from error


def _choose_column(names: list[str], where: str) -> str:
    for column in _COLUMNS:
        if column in names:
            return column
    if len(names) == 1:
        return names[0]
    raise UserError(
        f"{where} has none of the columns {', '.join(_COLUMNS)}, but {', '.join(names)}"
    )


def _document(row: Any, where: str) -> Iterator[Document]:
    value = row
    if isinstance(row, Mapping):
        value = row[_choose_column(list(row), where)]
    if isinstance(value, str):
        _check_text(value, where)
        if value.strip():
            yield value
    elif isinstance(value, list) and value and all(_is_message(m) for m in value):
        for message in value:
            _check_text(message["role"] + message["content"], where)
        yield [{"role": m["role"], "content": m["content"]} for m in value]
    elif value is not None and value != []:
        raise UserError(f"{where} holds a {type(value).__name__} where a text or messages belong")


def _check_text(text: str, where: str) -> None:
    """JSON can spell half of a surrogate pair, which no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{where} holds {text[error.start]!a}, half of a surrogate pair: take it out"
        ) from error


def _is_message(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and isinstance(value.get("role"), str)
        and isinstance(value.get("content"), str)
    )
