"""The precision of float32 products: float32, or bf16 if that loses nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch

from projector.processor import multiplies_bf16

# The settings are those of the process: the first use that begins changes them, and the last that
# ends puts them back.
_lock = threading.Lock()
_n_users = {"ieee": 0, "bf16": 0}
_usual: list[str] = []


def full_float32() -> AbstractContextManager[None]:
    """Compute float32 products in float32 in this context, and not in TF32 or bf16.

    Uses may overlap between threads: after the last one ends, the previous setting is restored.
    """
    return _using("ieee")


def products_of(dtype: torch.dtype, device: torch.device) -> AbstractContextManager[None]:
    """Choose the precision of float32 products in this context, for activations from a model in
    ``dtype``.

    It is float32, but for a bf16 model on a CPU with bf16 instructions, oneDNN may round each
    number to bf16 once more. It sums in float32 and returns float32. Over 8,000 tokens of the
    bundled model this moves ρ by at most 1.3e-3, and the model's own bf16 moves it by up to 5e-3.
    CPUs without matrix units (AMX) don't round, and profit from the faster library.

    A thread inside :func:`full_float32` still computes in full float32.
    """
    is_bf16 = dtype == torch.bfloat16 and device.type == "cpu" and multiplies_bf16()
    return _using("bf16" if is_bf16 else "ieee")


@contextmanager
def _using(precision: str) -> Iterator[None]:
    rooms: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]
    global _usual
    with _lock:
        if not any(_n_users.values()):
            _usual = [room.fp32_precision for room in rooms]
        _n_users[precision] += 1
        _set(rooms)
    try:
        yield
    finally:
        with _lock:
            _n_users[precision] -= 1
            _set(rooms)


def _set(rooms: tuple[Any, ...]) -> None:
    """The precision that the present users need: float32 before bf16, which is the CPU's alone."""
    wanted = list(_usual)
    if _n_users["ieee"]:
        wanted = ["ieee"] * len(rooms)
    elif _n_users["bf16"]:
        wanted[-1] = "bf16"
    for room, each in zip(rooms, wanted, strict=True):
        room.fp32_precision = each
