"""Safetensors files, one tensor in memory at a time."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

# What the format calls the types that are written here; it stores them in this order.
_TYPES = {
    torch.float64: "F64",
    torch.int64: "I64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file, getting one tensor at a time from the mapping.

    The library's own writer keeps a copy of all tensors. Equal content gives equal bytes,
    regardless of the order of the mapping.

    Raises:
        OSError: if the disk is full or not writable.
    """
    order = list(_TYPES)
    names = sorted(tensors, key=lambda name: (order.index(tensors[name].dtype), name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name in names:
        tensor = tensors[name]
        begin, end = end, end + math.prod(tensor.shape) * tensor.element_size()
        header[name] = {
            "dtype": _TYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            flat = tensors[name].detach().cpu().contiguous().reshape(-1)
            if flat.stride(0) != 1:
                # One number, or none, is contiguous whatever its stride.
                flat = flat.clone(memory_format=torch.contiguous_format)
            file.write(flat.view(torch.uint8).numpy().data)


def read_metadata(path: Path) -> dict[str, str]:
    """Read the file's metadata.

    Raises:
        OSError: if the file doesn't exist.
        SafetensorError: if it is damaged.
    """
    with safe_open(path, framework="pt") as file:
        return file.metadata() or {}


class TensorFile(Mapping[str, Tensor]):
    """The tensors of a safetensors file, or those in ``names``, each read on access.

    Raises:
        OSError, SafetensorError: when opened or at any access, if it can't be read.
    """

    def __init__(self, path: Path, names: Iterable[str] | None = None) -> None:
        self.path = path
        if names is None:
            with safe_open(path, framework="pt") as file:
                names = file.keys()
        self._names = tuple(names)

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        with safe_open(self.path, framework="pt") as file:
            tensor: Tensor = file.get_tensor(name)
            return tensor

    def __contains__(self, name: object) -> bool:
        # The mapping's own would read the tensor.
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
