"""Headers of safetensors files: names, shapes and types of tensors, read without PyTorch."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

# Bytes of a number, by what the format calls its type.
_SIZES = {
    "F64": 8,
    "I64": 8,
    "U64": 8,
    "F32": 4,
    "I32": 4,
    "U32": 4,
    "BF16": 2,
    "F16": 2,
    "I16": 2,
    "U16": 2,
    "U8": 1,
    "I8": 1,
    "BOOL": 1,
}
# As the format's own library has it.
_MOST_BYTES = 100_000_000


class DamagedFile(ValueError):
    """A safetensors file is truncated or invalid; the message describes the damage."""


@dataclass(frozen=True)
class Header:
    """The header of a safetensors file: its tensors and metadata.

    Attributes:
        metadata: the file's metadata.
        shapes: tensor name → shape.
        kinds: tensor name → dtype in the format's notation, such as ``F32``.
    """

    metadata: dict[str, str]
    shapes: dict[str, tuple[int, ...]]
    kinds: dict[str, str]


def read_header(path: Path) -> Header:
    """Read the header of a safetensors file, and check that no tensor is truncated.

    Raises:
        OSError: if the file can't be read.
        DamagedFile: if it is truncated, or isn't a safetensors file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _MOST_BYTES):
            raise DamagedFile("it ends before its header does")
        text = file.read(length)
    try:
        header = json.loads(text)
        metadata = header.pop("__metadata__", None)
        metadata = {} if metadata is None else metadata
        if not all(isinstance(each, str) for each in metadata.values()):
            raise DamagedFile("its metadata holds something that is not a text")
        shapes, kinds, end = {}, {}, 0
        for name, entry in header.items():
            shapes[name], kinds[name] = tuple(entry["shape"]), entry["dtype"]
            first, last = entry["data_offsets"]
            if last - first != math.prod(shapes[name]) * _SIZES[kinds[name]]:
                raise DamagedFile(f"'{name}' doesn't have the size that its shape gives")
            end = max(end, last)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, DamagedFile):
            raise
        raise DamagedFile("its header can't be read") from error
    if size != 8 + length + end:
        raise DamagedFile(f"it has {size:,} bytes instead of {8 + length + end:,}")
    return Header(dict(metadata), shapes, kinds)
