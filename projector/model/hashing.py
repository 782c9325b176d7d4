"""A model's weights: the hash that identifies them, and the type they are stored in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

# What safetensors calls the types a checkpoint holds; a hash must not depend on where it was made.
_TYPE_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}


def hash_checkpoint(folder: Path) -> str:
    """SHA-256 of a checkpoint's tensors in the order of their names (name, dtype, shape, bytes)."""
    index: dict[str, Path] = {}
    for path in _weight_files(folder):
        with safe_open(path, framework="pt") as file:
            index |= dict.fromkeys(file.keys(), path)

    def tensors() -> Iterator[tuple[str, Tensor]]:
        for name in sorted(index):
            with safe_open(index[name], framework="pt") as file:
                yield name, file.get_tensor(name)

    return _hash_tensors(tensors())


def stored_type(folder: Path) -> torch.dtype | None:
    """The dtype of a checkpoint's floating-point tensors; None if there are several."""
    found = set()
    for path in _weight_files(folder):
        with safe_open(path, framework="pt") as file:
            found |= {file.get_slice(name).get_dtype() for name in file.keys()}
    types = {each for each, name in _TYPE_NAMES.items() if name in found and each.is_floating_point}
    return types.pop() if len(types) == 1 else None


def _weight_files(folder: Path) -> list[Path]:
    """The files that hold a checkpoint: those of its index, or the one file, or all there are.

    Some folders hold the same weights a second time in another form.
    """
    index = folder / "model.safetensors.index.json"
    if index.exists():
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        return [folder / name for name in sorted(names)]
    single = folder / "model.safetensors"
    return [single] if single.exists() else sorted(folder.glob("*.safetensors"))


def hash_module(model: nn.Module) -> str:
    """SHA-256 of a model in memory; tied weights count once.

    It equals :func:`hash_checkpoint` of the model saved with ``save_pretrained``, unless saving
    renames tensors, as for a mixture of experts.
    """
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    state = model.state_dict()
    return _hash_tensors((name, state[name]) for name in sorted(state) if name not in tied)


def _hash_tensors(tensors: Iterable[tuple[str, Tensor]]) -> str:
    digest = hashlib.sha256()
    for name, tensor in tensors:
        digest.update(f"{name}\n{_TYPE_NAMES[tensor.dtype]}\n{list(tensor.shape)}\n".encode())
        raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(raw.numpy().data)
    return digest.hexdigest()
